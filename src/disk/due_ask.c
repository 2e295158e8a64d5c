/* SPDX-License-Identifier: Apache-2.0 */
#include "disk/due.h"

int due_ask(struct due_case *c, struct live *l, struct verr *err)
{
    int r = live_attr(l, &c->attr, err);
    if (r < 0)
        return r;
    c->data = DUE_DATA_UNKNOWN;
    enum due what = due(c);
    if (what != DUE_ASK_DATA)
        return (int)what;
    r = live_has_data(l, err);
    if (r < 0)
        return r;
    c->data = r > 0 ? DUE_DATA_YES : DUE_DATA_NO;
    return (int)due(c);
}
