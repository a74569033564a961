/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one parser of quantities: processors ("2", "0.5", "500m"), sizes ("512M", "4G", "4GiB", "8g",
 * "1.5G"; K M G T are powers of 1024 in every spelling) and spans ("90s", "5m", "1h30m", "2d",
 * "0.5s"; a bare number is seconds). No sign, blanks or exponent; digits on both sides of a point.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Errors: -EINVAL not a quantity; -ERANGE too large, or not representable exactly. */
int units_parse_cpu(const char *text, uint32_t *ret_milli); /* thousandths; at least 1 */
int units_parse_size(const char *text, uint64_t *ret_bytes);
int units_parse_span(const char *text, uint64_t *ret_ns);
int units_parse_count(const char *text, uint64_t max, uint64_t *ret);

/*
 * The usual exact spelling ("4G", "1536M", "500m", "1h30m"), for status. `size` of at least 32
 * bytes always fits.
 */
void units_format_cpu(uint32_t milli, char *text, size_t size);
void units_format_size(uint64_t bytes, char *text, size_t size);
void units_format_span(uint64_t ns, char *text, size_t size);
