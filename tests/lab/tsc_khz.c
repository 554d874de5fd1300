/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the frequency of this machine's TSC in kHz, as the agent measures it for its guests. */
#include <stdio.h>

#include "agent/vmm/host_int.h"

int main(void)
{
    printf("%u\n", host_measure_tsc_khz());
    return 0;
}
