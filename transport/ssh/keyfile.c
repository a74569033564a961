/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenSSH's format is "openssh-key-v1" NUL, then strings (length, bytes): cipher, kdf, its options,
 * then the number of keys and the public one. Others are PEM around ASN.1, whose header or object
 * identifier tells.
 *
 * Source: OpenSSH's PROTOCOL.key.
 */

#include "transport/ssh/keyfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>

#include "transport/base/file.h"
#include "transport/ssh/base64.h"

#define KEYFILE_MAX 65536
#define MAGIC "openssh-key-v1"
#define BEGIN "-----BEGIN "
#define END "-----END "

static const unsigned char rsa_oid[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01};

struct reader {
        const unsigned char *at;
        size_t left;
};

static bool read_number(struct reader *r, uint32_t *ret)
{
        if (r->left < 4)
                return false;
        *ret = (uint32_t)r->at[0] << 24 | (uint32_t)r->at[1] << 16 | (uint32_t)r->at[2] << 8 |
               r->at[3];
        r->at += 4;
        r->left -= 4;
        return true;
}

static bool read_string(struct reader *r, const unsigned char **ret, size_t *ret_size)
{
        uint32_t size;

        if (!read_number(r, &size) || size > r->left)
                return false;
        *ret = r->at;
        *ret_size = size;
        r->at += size;
        r->left -= size;
        return true;
}

bool keyfile_is_rsa_blob(const unsigned char *blob, size_t size)
{
        struct reader r = {blob, size};
        const unsigned char *type;
        size_t type_size;

        return read_string(&r, &type, &type_size) && type_size == 7 &&
               memcmp(type, "ssh-rsa", 7) == 0;
}

static int look_openssh(struct keyfile *k, const struct buf *body)
{
        struct reader r = {(const unsigned char *)body->data, body->size};
        const unsigned char *cipher, *other, *public;
        size_t cipher_size, other_size, public_size;
        uint32_t count;

        if (r.left < sizeof(MAGIC) || memcmp(r.at, MAGIC, sizeof(MAGIC)) != 0)
                return -EINVAL;
        r.at += sizeof(MAGIC);
        r.left -= sizeof(MAGIC);
        if (!read_string(&r, &cipher, &cipher_size) || !read_string(&r, &other, &other_size) ||
            !read_string(&r, &other, &other_size) || !read_number(&r, &count) ||
            !read_string(&r, &public, &public_size))
                return -EINVAL;
        k->is_encrypted = cipher_size != 4 || memcmp(cipher, "none", 4) != 0;
        k->is_rsa = keyfile_is_rsa_blob(public, public_size);
        return 0;
}

int keyfile_look(struct keyfile *k)
{
        const char *text = buf_str(&k->text), *begin = strstr(text, BEGIN), *body, *end;
        struct buf raw = BUF_INIT(KEYFILE_MAX);
        int r = 0;

        if (strlen(text) != k->text.size || !begin || !strstr(begin, "PRIVATE KEY-----"))
                return -EINVAL;
        body = begin + strcspn(begin, "\n");
        end = strstr(body, END);
        if (!end)
                return -EINVAL;
        k->is_rsa = strncmp(begin, BEGIN "RSA ", strlen(BEGIN "RSA ")) == 0;
        k->is_encrypted = strstr(begin, "ENCRYPTED") != NULL;
        if (k->is_encrypted)
                return 0;
        if (base64_decode(&raw, body, (size_t)(end - body)) < 0)
                r = -EINVAL;
        else if (strncmp(begin, BEGIN "OPENSSH ", strlen(BEGIN "OPENSSH ")) == 0)
                r = look_openssh(k, &raw);
        else if (raw.size > 0 && memmem(raw.data, raw.size, rsa_oid, sizeof(rsa_oid)))
                k->is_rsa = true;
        buf_wipe(&raw);
        return r;
}

int keyfile_read(const char *path, struct keyfile *ret)
{
        int r;

        *ret = (struct keyfile){.text = BUF_INIT(KEYFILE_MAX)};
        r = file_read(AT_FDCWD, path, &ret->text);
        return r < 0 ? r : keyfile_look(ret);
}

void keyfile_done(struct keyfile *k)
{
        buf_wipe(&k->text);
}
