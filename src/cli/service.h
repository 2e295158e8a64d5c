/* SPDX-License-Identifier: Apache-2.0 */
/* What a daemon tells systemd (Type=notify): ready, backlog, watchdog, stopping. Without $NOTIFY_SOCKET all of it does nothing. */
#ifndef VARVE_CLI_SERVICE_H
#define VARVE_CLI_SERVICE_H

struct agent;

/* Reads the environment, and takes it away. Before threads and before the sandbox. */
void service_begin(void);
/* The mount is usable. Starts a thread that tells the backlog and, as long as the agent answers, feeds the watchdog. */
void service_ready(struct agent *a);
/* Ends the thread. The agent is still there. */
void service_stopping(void);

#endif
