/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main of a fuzz target where libFuzzer is not: feeds it each file named on the command line,
 * and each file in each directory named there, once. A corpus that is missing or empty is an error,
 * so that it can't go unnoticed.
 */

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t n_fed;

static int feed(const char *path)
{
        FILE *f = fopen(path, "rbe");
        struct stat st;
        uint8_t *data;
        int r = -1;

        if (!f) {
                perror(path);
                return -1;
        }
        /* Exactly as large as the input, so that the address sanitizer sees a read past its end. */
        if (fstat(fileno(f), &st) == 0 &&
            (data = malloc((size_t)st.st_size ? (size_t)st.st_size : 1))) {
                size_t size = fread(data, 1, (size_t)st.st_size, f);

                (void)LLVMFuzzerTestOneInput(data, size); /* always 0; a finding is a crash */
                n_fed++;
                free(data);
                r = 0;
        }
        (void)fclose(f); /* only read */
        return r;
}

static int feed_dir(const char *path)
{
        struct dirent **names;
        int r = 0, count = scandir(path, &names, NULL, alphasort);

        if (count < 0) {
                perror(path);
                return -1;
        }
        for (int i = 0; i < count; i++) {
                char *file = NULL;

                if (names[i]->d_name[0] != '.') {
                        if (asprintf(&file, "%s/%s", path, names[i]->d_name) < 0 || feed(file) < 0)
                                r = -1;
                        free(file);
                }
                free(names[i]);
        }
        free(names);
        return r;
}

int main(int argc, char **argv)
{
        int r = 0;

        for (int i = 1; i < argc; i++) {
                struct stat st;

                if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode))
                        r |= feed_dir(argv[i]);
                else
                        r |= feed(argv[i]);
        }
        if (n_fed == 0)
                (void)fprintf(stderr, "no input was fed\n");
        return r != 0 || n_fed == 0;
}
