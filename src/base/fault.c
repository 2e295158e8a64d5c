/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fault.h"

#ifdef VARVE_FAULTS

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FAULT_MAX = 8 };

static struct fault {
    char name[64];
    long at;
    bool sticky;
    char action[16];
    long passed;
} faults[FAULT_MAX];
static int fault_count;
static pthread_once_t fault_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER;

static void fault_load(void)
{
    const char *text = getenv("VARVE_FAULT");
    while (text != NULL && *text != '\0' && fault_count < FAULT_MAX) {
        struct fault *f = &faults[fault_count];
        char plus[2] = "";
        if (sscanf(text, "%63[^:,]:%ld%1[+]=%15[^,]", f->name, &f->at, plus, f->action) == 4 ||
            sscanf(text, "%63[^:,]:%ld=%15[^,]", f->name, &f->at, f->action) == 3) {
            f->sticky = plus[0] == '+';
            fault_count++;
        }
        text = strchr(text, ',');
        if (text != NULL)
            text++;
    }
}

static void fault_pause(const char *name)
{
    const char *file = getenv("VARVE_FAULT_PAUSE");
    const struct timespec tick = {0, 10 * 1000 * 1000};
    dprintf(STDERR_FILENO, "fault: paused at %s\n", name);
    while (file != NULL && access(file, F_OK) == 0)
        nanosleep(&tick, NULL);
}

int fault_errno(const char *name)
{
    pthread_once(&fault_once, fault_load);
    for (int i = 0; i < fault_count; i++) {
        struct fault *f = &faults[i];
        if (strcmp(f->name, name) != 0)
            continue;
        pthread_mutex_lock(&fault_lock);
        long n = ++f->passed;
        pthread_mutex_unlock(&fault_lock);
        if (n != f->at && !(f->sticky && n > f->at))
            continue;
        if (strcmp(f->action, "kill") == 0) {
            kill(getpid(), SIGKILL);
            for (;;)
                pause();
        }
        if (strcmp(f->action, "pause") == 0) {
            fault_pause(name);
            continue;
        }
        return atoi(f->action);
    }
    return 0;
}

#endif
