/* SPDX-License-Identifier: Apache-2.0 */
/* Stands for a torpor-memory.so that does not take hold: it stands in for nothing. */
extern const char torpor_empty_library[];
const char torpor_empty_library[] = "empty";
