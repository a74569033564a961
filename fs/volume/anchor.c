/* SPDX-License-Identifier: Apache-2.0 */
/* Link texts, component by component; no I/O. */

#include "fs/volume/anchor.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct word {
        const char *text;
        size_t size;
};

struct out {
        char *text;
        size_t size; /* in use */
        size_t room;
        unsigned names; /* components behind the ".." */
        unsigned ups;
        bool is_full;
};

/* The next component of a path; false at its end. */
static bool next_word(const char **at, struct word *w)
{
        *at += strspn(*at, "/");
        w->text = *at;
        w->size = strcspn(*at, "/");
        *at += w->size;
        return w->size > 0;
}

static bool is_dot(const struct word *w)
{
        return w->size == 1 && w->text[0] == '.';
}

static bool is_up(const struct word *w)
{
        return w->size == 2 && w->text[0] == '.' && w->text[1] == '.';
}

static void add(struct out *o, const char *text, size_t size)
{
        size_t slash = o->size > 0 ? 1 : 0;

        if (o->is_full || size + slash + 1 > o->room - o->size) {
                o->is_full = true;
                return;
        }
        if (slash)
                o->text[o->size++] = '/';
        memcpy(o->text + o->size, text, size);
        o->size += size;
        o->text[o->size] = '\0';
}

static void add_ups(struct out *o, unsigned count)
{
        for (unsigned i = 0; i < count && !o->is_full; i++)
                add(o, "..", 2);
        o->ups += count;
}

/* Take the last name back. */
static void drop_name(struct out *o)
{
        while (o->size > 0 && o->text[o->size - 1] != '/')
                o->size--;
        if (o->size > 0)
                o->size--;
        o->text[o->size] = '\0';
        o->names--;
}

/*
 * Follow the words of `path` in the text. `ups_left` is how often ".." may still lead up from where
 * the names begin; more of them stay there, as they do at the root of a chroot.
 */
static void walk(struct out *o, const char *path, unsigned ups_left)
{
        struct word w;

        while (next_word(&path, &w) && !o->is_full) {
                if (is_dot(&w))
                        continue;
                if (!is_up(&w)) {
                        add(o, w.text, w.size);
                        o->names++;
                } else if (o->names > 0) {
                        drop_name(o);
                } else if (ups_left > 0) {
                        add_ups(o, 1);
                        ups_left--;
                }
        }
}

/* Relative, no more ".." than there are directories, and those all in front. */
static bool is_fine(const char *target, unsigned depth, unsigned *ret_ups)
{
        bool has_name = false;
        unsigned ups = 0;
        struct word w;

        if (target[0] == '/')
                return false;
        while (next_word(&target, &w)) {
                if (is_up(&w) && (has_name || ++ups > depth))
                        return false;
                has_name = has_name || (!is_up(&w) && !is_dot(&w));
        }
        *ret_ups = ups;
        return true;
}

/* An absolute path without "." and ".." in o->text, no slash in front. */
static void flatten(struct out *o, const char *path)
{
        o->text[0] = '\0';
        walk(o, path, 0);
}

/*
 * What is left of the flat path behind `inside`, "" when they are the same;
 * NULL when it isn't below.
 */
static const char *below(const char *flat, const char *inside)
{
        struct word a, b;

        while (next_word(&inside, &b)) {
                if (!next_word(&flat, &a) || a.size != b.size ||
                    memcmp(a.text, b.text, a.size) != 0)
                        return NULL;
        }
        return flat + strspn(flat, "/");
}

static bool ends_in_slash(const char *text, size_t size)
{
        return size > 1 && text[size - 1] == '/';
}

/* Where an absolute target is seen from the directory at `depth`; `o` is empty. */
static void anchor_absolute(struct out *o, const char *target, unsigned depth, const char *inside)
{
        char flat[4096]; /* PATH_MAX: a link's text is no longer */
        struct out words = {.text = flat, .room = sizeof(flat)};
        const char *rest;

        flatten(&words, target);
        o->is_full = words.is_full;
        rest = inside[0] ? below(flat, inside) : NULL;
        add_ups(o, depth);
        walk(o, rest ? rest : flat, 0);
}

int anchor_target(const char *target, unsigned depth, const char *inside, char *to, size_t size,
                  unsigned *ret_ups)
{
        struct out o = {.text = to, .room = size};
        size_t length = strlen(target);
        unsigned ups = 0;

        if (length == 0 || (inside[0] && inside[0] != '/'))
                return -EINVAL;
        if (size == 0)
                return -ENAMETOOLONG;
        if (is_fine(target, depth, &ups)) {
                if (length >= size)
                        return -ENAMETOOLONG;
                memcpy(to, target, length + 1);
                o.size = length;
        } else {
                to[0] = '\0';
                if (target[0] == '/')
                        anchor_absolute(&o, target, depth, inside);
                else
                        walk(&o, target, depth);
                if (o.size == 0)
                        add(&o, ".", 1);
                else if (ends_in_slash(target, length) && !o.is_full)
                        add(&o, "", 0); /* "x/" insists on a directory */
                ups = o.ups;
        }
        if (o.is_full)
                return -ENAMETOOLONG;
        if (ret_ups)
                *ret_ups = ups;
        return (int)o.size;
}
