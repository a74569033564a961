/* SPDX-License-Identifier: Apache-2.0 */
/* What a layer is linked into, to see that it links without those above it. */

int main(void)
{
        return 0;
}
