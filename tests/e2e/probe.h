/* SPDX-License-Identifier: Apache-2.0 */
/* What the probe in a guest sends and the capture on the host looks for. */
#ifndef TORPOR_TESTS_E2E_PROBE_H
#define TORPOR_TESTS_E2E_PROBE_H

#define PROBE_MARK "torpor-probe-4242"
#define PROBE_FORGED "torpor-forged-424" /* as long; what no host may ever see */
#define PROBE_PORT 4242
#define PROBE_PUBLIC                                                                               \
    "93.184.216.34" /* stands for the internet; the test routes it to a namespace */

#endif
