/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records. On disk:
 *
 *      sbxfs record 1
 *      KEY VALUE                   in a value control bytes and the backslash are \xNN
 *      end 1f2e3d4c5b6a7988        FNV-1a of all before: shows a cut or damaged file
 *
 * There is one text for one record: what is read and written again has the same bytes.
 */

#include "transport/base/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/base/hash.h"
#include "transport/base/random.h"

#define SIZE_LIMIT ((size_t)1024 * 1024)
#define FIRST_LINE "sbxfs record 1\n"
#define LAST_LINE_SIZE (sizeof("end 0123456789abcdef\n") - 1)

struct pair {
        char *key; /* one allocation with the value behind it */
        char *value;
};

struct record {
        struct buf pairs; /* an array of struct pair */
};

struct record *record_new(void)
{
        struct record *r = malloc(sizeof(*r));

        if (r)
                r->pairs = BUF_INIT(SIZE_LIMIT * sizeof(struct pair));
        return r;
}

static const struct pair *pairs(const struct record *r)
{
        return (const struct pair *)(const void *)r->pairs.data;
}

size_t record_count(const struct record *r)
{
        return r->pairs.size / sizeof(struct pair);
}

static void pair_free(const struct pair *p)
{
        explicit_bzero(p->value, strlen(p->value));
        free(p->key);
}

void record_free(struct record *r)
{
        if (!r)
                return;
        for (size_t i = 0; i < record_count(r); i++)
                pair_free(&pairs(r)[i]);
        buf_done(&r->pairs);
        free(r);
}

void record_freep(struct record **r)
{
        record_free(*r);
}

static bool is_key(const char *key, size_t size)
{
        static const char allowed[] =
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";

        for (size_t i = 0; i < size; i++)
                if (key[i] == '\0' || !strchr(allowed, key[i]))
                        return false;
        return size > 0;
}

/* Add a pair with room for a value of `value_size` bytes, which the caller fills in. */
static int add(struct record *r, const char *key, size_t key_size, size_t value_size,
               char **ret_value)
{
        struct pair pair;
        int x;

        if (!is_key(key, key_size))
                return -EINVAL;
        if (key_size > SIZE_LIMIT || value_size > SIZE_LIMIT)
                return -E2BIG;
        pair.key = calloc(1, key_size + 1 + value_size + 1);
        if (!pair.key)
                return -ENOMEM;
        memcpy(pair.key, key, key_size);
        pair.value = pair.key + key_size + 1;
        x = buf_add(&r->pairs, &pair, sizeof(pair));
        if (x < 0) {
                free(pair.key);
                return x;
        }
        *ret_value = pair.value;
        return 0;
}

int record_add(struct record *r, const char *key, const char *value)
{
        size_t size = strlen(value);
        char *to;
        int x = add(r, key, strlen(key), size, &to);

        if (x == 0)
                memcpy(to, value, size);
        return x;
}

int record_addf(struct record *r, const char *key, const char *format, ...)
{
        struct buf value = BUF_INIT(SIZE_LIMIT);
        va_list args;
        int x;

        va_start(args, format);
        x = buf_addv(&value, format, args);
        va_end(args);
        if (x == 0)
                x = record_add(r, key, buf_str(&value));
        buf_wipe(&value);
        return x;
}

const char *record_get(const struct record *r, const char *key)
{
        for (size_t i = 0; i < record_count(r); i++)
                if (strcmp(pairs(r)[i].key, key) == 0)
                        return pairs(r)[i].value;
        return NULL;
}

void record_at(const struct record *r, size_t i, const char **ret_key, const char **ret_value)
{
        *ret_key = pairs(r)[i].key;
        *ret_value = pairs(r)[i].value;
}

static bool is_escaped(char c)
{
        return (unsigned char)c < 0x20 || c == 0x7f || c == '\\';
}

static uint64_t checksum(const char *text, size_t size)
{
        return hash64(HASH64_START, text, size);
}

static int add_value(struct buf *to, const char *value)
{
        int r = 0;

        while (r == 0 && *value) {
                const char *start = value;

                while (*value && !is_escaped(*value))
                        value++;
                r = buf_add(to, start, (size_t)(value - start));
                if (r == 0 && *value)
                        r = buf_addf(to, "\\x%02x", (unsigned char)*value++);
        }
        return r;
}

static int add_pairs(const struct record *r, struct buf *to)
{
        for (size_t i = 0; i < record_count(r); i++) {
                int x = buf_addf(to, "%s ", pairs(r)[i].key);

                if (x == 0)
                        x = add_value(to, pairs(r)[i].value);
                if (x == 0)
                        x = buf_add_char(to, '\n');
                if (x < 0)
                        return x;
        }
        return 0;
}

int record_format(const struct record *r, struct buf *to)
{
        int x = buf_add_str(to, FIRST_LINE);

        if (x == 0)
                x = add_pairs(r, to);
        if (x == 0)
                x = buf_addf(to, "end %016" PRIx64 "\n", checksum(to->data, to->size));
        return x;
}

static int hex(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Undo the escapes; the value is never longer than its text. */
static int unescape(const char *text, size_t size, char *to)
{
        const char *end = text + size;

        while (text < end) {
                int high, low;

                if (*text != '\\') {
                        if (is_escaped(*text))
                                return -EBADMSG;
                        *to++ = *text++;
                        continue;
                }
                if (end - text < 4 || text[1] != 'x')
                        return -EBADMSG;
                high = hex(text[2]);
                low = hex(text[3]);
                if (high < 0 || low < 0 || (high | low) == 0 ||
                    !is_escaped((char)(high << 4 | low)))
                        return -EBADMSG;
                *to++ = (char)(high << 4 | low);
                text += 4;
        }
        *to = '\0';
        return 0;
}

/* One line without its newline. */
static int parse_line(struct record *r, const char *line, size_t size)
{
        const char *blank = memchr(line, ' ', size);
        char *value;
        size_t key_size, value_size;
        int x;

        if (!blank)
                return -EBADMSG;
        key_size = (size_t)(blank - line);
        value_size = size - key_size - 1;
        x = add(r, line, key_size, value_size, &value);
        if (x < 0)
                return x == -EINVAL ? -EBADMSG : x;
        return unescape(blank + 1, value_size, value);
}

/* Whether first and last line are ours and the sum is right; *ret_body is what is between. */
static bool find_body(const char *text, size_t size, const char **ret_body, size_t *ret_size)
{
        const size_t first = sizeof(FIRST_LINE) - 1;
        char last[LAST_LINE_SIZE + 1];

        if (size < first + LAST_LINE_SIZE || memcmp(text, FIRST_LINE, first) != 0)
                return false;
        size -= LAST_LINE_SIZE;
        (void)snprintf(last, sizeof(last), "end %016" PRIx64 "\n", checksum(text, size)); /* fits */
        if (text[size - 1] != '\n' || memcmp(text + size, last, LAST_LINE_SIZE) != 0)
                return false;
        *ret_body = text + first;
        *ret_size = size - first;
        return true;
}

int record_parse(const char *text, size_t size, struct record **ret)
{
        _cleanup_(record_freep) struct record *r = NULL;
        const char *at, *end;

        if (size > SIZE_LIMIT || !find_body(text, size, &at, &size))
                return -EBADMSG;
        r = record_new();
        if (!r)
                return -ENOMEM;
        for (end = at + size; at < end;) {
                const char *newline = memchr(at, '\n', (size_t)(end - at));
                int x = newline ? parse_line(r, at, (size_t)(newline - at)) : -EBADMSG;

                if (x < 0)
                        return x;
                at = newline + 1;
        }
        *ret = STEAL(r);
        return 0;
}

static int write_file(int dir, const char *name, const struct buf *text, enum record_sync sync)
{
        _cleanup_(closep) int fd =
                openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        int r;

        if (fd < 0)
                return -errno;
        r = file_write_all(fd, text->data, text->size);
        if (r == 0 && sync == RECORD_SYNC && fsync(fd) < 0)
                r = -errno;
        if (close(STEAL_FD(fd)) < 0 && r == 0)
                r = -errno;
        return r;
}

/* fsync of a directory that may have been opened with O_PATH. */
static int sync_dir(int dir)
{
        _cleanup_(closep) int fd = -1;

        if (dir != AT_FDCWD && fsync(dir) == 0)
                return 0;
        fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int replace(int dir, const char *name, const struct buf *text, enum record_sync sync)
{
        char temp[sizeof(".tmp-") + RANDOM_ID_SIZE] = ".tmp-";
        int r = random_id(temp + sizeof(".tmp-") - 1);

        if (r < 0)
                return r;
        r = write_file(dir, temp, text, sync);
        if (r == 0 && renameat(dir, temp, dir, name) < 0)
                r = -errno;
        if (r < 0) {
                (void)unlinkat(dir, temp, 0); /* it may not even be there */
                return r;
        }
        return sync == RECORD_SYNC ? sync_dir(dir) : 0;
}

int record_write(const struct record *r, int dir, const char *name, enum record_sync sync)
{
        struct buf text = BUF_INIT(SIZE_LIMIT);
        int x;

        if (name[0] == '\0' || strchr(name, '/'))
                return -EINVAL;
        x = record_format(r, &text);
        if (x == 0)
                x = replace(dir, name, &text, sync);
        buf_wipe(&text);
        return x;
}

/* The whole file, if it can be a record. */
static int read_text(int dir, const char *name, struct buf *to)
{
        _cleanup_(closep) int fd =
                openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
        struct stat st;
        ssize_t n;
        char *at;

        if (fd < 0)
                return errno == ELOOP || errno == ENXIO ? -EBADMSG : -errno; /* a link; a socket */
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_size > (off_t)SIZE_LIMIT)
                return -EBADMSG;
        at = buf_reserve(to, (size_t)st.st_size);
        if (!at)
                return -ENOMEM;
        n = file_pread_full(fd, at, (size_t)st.st_size, 0);
        if (n < 0)
                return (int)n;
        to->size += (size_t)n;
        return 0;
}

int record_read(int dir, const char *name, struct record **ret)
{
        struct buf text = BUF_INIT(SIZE_LIMIT);
        int r = read_text(dir, name, &text);

        if (r == 0)
                r = record_parse(buf_str(&text), text.size, ret);
        buf_wipe(&text);
        return r;
}
