/* SPDX-License-Identifier: Apache-2.0 */
/* pool: each task runs exactly once, with any number of threads and with none; serials keep order; pool_free loses nothing. */
#include "base/pool.h"
#include "base/verr.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { RING = 3, ITEMS = 2000, THREADS_MAX = 4 };

static struct pool *make(unsigned threads)
{
    struct verr err = {0};
    struct pool *p = pool_new(threads, &err);
    assert_non_null(p);
    assert_int_equal(pool_threads(p), threads);
    return p;
}

/* ---- lent tasks ---- */

struct square {
    struct pool_task task;      /* first: the pool hands it back */
    uint64_t in, out;
    unsigned runs;
};

static void run_square(struct pool_task *task)
{
    struct square *s = (struct square *)task;
    s->out = s->in * s->in;
    s->runs++;
}

/* As the stages do: RING tasks under way, results used in order. */
static void pipeline(struct pool *p)
{
    struct square ring[RING] = {{.in = 0}};
    uint64_t used = 0;
    for (uint64_t n = 0; n < ITEMS + RING; n++) {
        struct square *s = &ring[n % RING];
        if (n >= RING) {
            pool_wait(p, &s->task);
            assert_int_equal(s->out, used * used);
            assert_int_equal(s->runs, 1);
            used++;
        }
        if (n < ITEMS) {
            s->in = n;
            s->runs = 0;
            s->task.run = run_square;
            pool_lend(p, &s->task);
        }
    }
    assert_int_equal(used, ITEMS);
}

static void any_number_of_threads_gives_the_same(void **state)
{
    (void)state;
    for (unsigned threads = 0; threads <= THREADS_MAX; threads++) {
        struct pool *p = make(threads);
        pipeline(p);
        pool_free(p);
    }
}

static void no_pool_works_in_the_caller(void **state)
{
    (void)state;
    struct square s = {.task = {.run = run_square}, .in = 7};
    assert_int_equal(pool_threads(NULL), 0);
    assert_false(pool_full(NULL));
    pipeline(NULL);
    pool_submit(NULL, &s.task);
    assert_int_equal(s.out, 49);
    pool_free(NULL);
}

/* A waiter takes its task out of the middle of the queue; the others still run. */
static void waiting_out_of_order(void **state)
{
    (void)state;
    for (unsigned threads = 0; threads <= 2; threads++) {
        struct pool *p = make(threads);
        struct square s[5] = {{.in = 0}};
        for (unsigned i = 0; i < 5; i++) {
            s[i].in = i;
            s[i].task.run = run_square;
            pool_lend(p, &s[i].task);
        }
        static const unsigned order[5] = {4, 2, 0, 3, 1};
        for (unsigned i = 0; i < 5; i++) {
            pool_wait(p, &s[order[i]].task);
            assert_int_equal(s[order[i]].out, order[i] * order[i]);
            assert_int_equal(s[order[i]].runs, 1);
        }
        pool_lend(p, &s[4].task);       /* the last of a queue that was emptied out of order */
        pool_wait(p, &s[4].task);
        assert_int_equal(s[4].runs, 2);
        pool_free(p);
    }
}

/* A tree of tasks, each of which lends two smaller ones and waits for them. */
struct sum {
    struct pool_task task;      /* first */
    struct pool *pool;
    unsigned depth, out;
};

static void run_sum(struct pool_task *task)
{
    struct sum *s = (struct sum *)task, half[2] = {{.depth = 0}};
    s->out = 1;
    for (unsigned i = 0; i < 2 && s->depth > 0; i++) {
        half[i] = (struct sum){.task = {.run = run_sum}, .pool = s->pool, .depth = s->depth - 1};
        pool_lend(s->pool, &half[i].task);
    }
    for (unsigned i = 0; i < 2 && s->depth > 0; i++) {
        pool_wait(s->pool, &half[i].task);
        s->out += half[i].out;
    }
}

static void a_task_may_wait_for_tasks(void **state)
{
    (void)state;
    for (unsigned threads = 0; threads <= THREADS_MAX; threads++) {
        struct pool *p = make(threads);
        struct sum s = {.task = {.run = run_sum}, .pool = p, .depth = 8};
        pool_lend(p, &s.task);
        pool_wait(p, &s.task);
        assert_int_equal(s.out, (1 << 9) - 1);
        pool_free(p);
    }
}

/* ---- tasks given away ---- */

/* Frees itself, and submits one more until none are left. */
struct chain {
    struct pool_task task;      /* first */
    struct pool *pool;
    unsigned left;
    atomic_uint *ran;
};

static void run_chain(struct pool_task *task)
{
    struct chain *c = (struct chain *)task, *more = NULL;
    atomic_fetch_add(c->ran, 1);
    if (c->left > 0 && (more = malloc(sizeof *more)) != NULL) {
        *more = *c;
        more->left--;
        pool_submit(more->pool, &more->task);
    }
    free(c);
}

/* pool_free comes while the chains have just begun. */
static void the_end_waits_for_what_running_tasks_submit(void **state)
{
    (void)state;
    for (unsigned threads = 0; threads <= THREADS_MAX; threads++) {
        struct pool *p = make(threads);
        atomic_uint ran = 0;
        for (unsigned i = 0; i < 20; i++) {
            struct chain *c = malloc(sizeof *c);
            assert_non_null(c);
            *c = (struct chain){.task = {.run = run_chain}, .pool = p, .left = 49, .ran = &ran};
            pool_submit(p, &c->task);
        }
        pool_free(p);
        assert_int_equal(ran, 20 * 50);
    }
}

/* A gate holds a thread until it is opened. */
struct gate {
    struct pool_task task;      /* first */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool entered, open;
};

static void run_gate(struct pool_task *task)
{
    struct gate *g = (struct gate *)task;
    pthread_mutex_lock(&g->lock);
    g->entered = true;
    pthread_cond_broadcast(&g->changed);
    while (!g->open)
        pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

static void gate_init(struct gate *g)
{
    *g = (struct gate){.task = {.run = run_gate}};
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
}

static void gate_entered(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    while (!g->entered)
        pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

static void gate_open(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    g->open = true;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

static void *open_soon(void *arg)
{
    usleep(50000);
    gate_open(arg);
    return NULL;
}

/* Two threads, one of them idle when the end comes: it stays, because the other one's task submits more and waits for it. */
struct last {
    struct gate gate;           /* first */
    struct pool *pool;
    struct gate more;
    bool served;
};

static void run_last(struct pool_task *task)
{
    struct last *l = (struct last *)task;
    run_gate(task);
    pool_submit(l->pool, &l->more.task);
    for (unsigned i = 0; i < 2000 && !l->served; i++) {
        usleep(5000);
        pthread_mutex_lock(&l->more.lock);
        l->served = l->more.entered;
        pthread_mutex_unlock(&l->more.lock);
    }
    gate_open(&l->more);
}

static void threads_stay_while_a_task_may_submit(void **state)
{
    (void)state;
    struct last l = {.pool = make(2)};
    pthread_t opener;
    gate_init(&l.gate);
    gate_init(&l.more);
    l.gate.task.run = run_last;
    pool_submit(l.pool, &l.gate.task);
    gate_entered(&l.gate);
    assert_int_equal(pthread_create(&opener, NULL, open_soon, &l.gate), 0);
    pool_free(l.pool);
    pthread_join(opener, NULL);
    assert_true(l.served);
}

static void a_full_pool_says_so(void **state)
{
    (void)state;
    enum { BOUND = 8192 };
    struct pool *p = make(1);
    struct square *s = calloc(BOUND, sizeof *s);
    struct gate g;
    assert_non_null(s);
    gate_init(&g);
    pool_submit(p, &g.task);
    gate_entered(&g);
    for (unsigned i = 0; i < BOUND; i++) {
        assert_false(pool_full(p));
        s[i].task.run = run_square;
        pool_submit(p, &s[i].task);
    }
    assert_true(pool_full(p));
    gate_open(&g);
    pool_free(p);
    for (unsigned i = 0; i < BOUND; i++)
        assert_int_equal(s[i].runs, 1);
    free(s);
}

/* ---- serials ---- */

enum { SERIALS = 50, STEPS = 200 };

struct counted {
    struct pool_serial serial;
    atomic_uint inside;         /* tasks of it that run now */
    unsigned at;                /* number of the task that comes next; no lock: the serial orders them */
    bool wrong;
    unsigned depth;             /* of posts from inside */
};

struct step {
    struct pool_task task;      /* first */
    struct counted *of;
    unsigned number;
};

static void run_step(struct pool_task *task)
{
    struct step *s = (struct step *)task;
    struct counted *c = s->of;
    if (atomic_fetch_add(&c->inside, 1) != 0 || c->at != s->number)
        c->wrong = true;
    if (s->number % 64 == 0)
        usleep(100);
    c->at++;
    atomic_fetch_sub(&c->inside, 1);
    free(s);
}

static void post_step(struct counted *c, unsigned number)
{
    struct step *s = malloc(sizeof *s);
    assert_non_null(s);
    *s = (struct step){.task = {.run = run_step}, .of = c, .number = number};
    pool_serial_post(&c->serial, &s->task);
}

static void each_serial_keeps_its_order(void **state)
{
    (void)state;
    static struct counted c[SERIALS];
    for (unsigned threads = 0; threads <= THREADS_MAX; threads++) {
        struct pool *p = make(threads);
        for (unsigned i = 0; i < SERIALS; i++) {
            c[i] = (struct counted){.at = 0};
            pool_serial_init(&c[i].serial, p, NULL);
            pool_serial_wait(&c[i].serial);     /* idle from the beginning */
        }
        for (unsigned n = 0; n < STEPS; n++)
            for (unsigned i = 0; i < SERIALS; i++)
                post_step(&c[i], n);
        for (unsigned i = 0; i < SERIALS; i += 2) {
            pool_serial_wait(&c[i].serial);
            assert_int_equal(c[i].at, STEPS);
        }
        assert_false(pool_full(p));
        pool_free(p);       /* the other half is run to its end */
        for (unsigned i = 0; i < SERIALS; i++) {
            assert_int_equal(c[i].at, STEPS);
            assert_false(c[i].wrong);
        }
    }
}

/* Each task posts two, down to depth 0, while pool_free waits for the end. */
struct fork {
    struct pool_task task;      /* first */
    struct counted *of;
    unsigned depth;
};

static void post_fork(struct counted *c, unsigned depth);

static void run_fork(struct pool_task *task)
{
    struct fork *f = (struct fork *)task;
    struct counted *c = f->of;
    /* In order of posting, each depth is through before the next smaller one begins. */
    if (atomic_fetch_add(&c->inside, 1) != 0 || f->depth > c->depth)
        c->wrong = true;
    c->depth = f->depth;
    c->at++;
    for (unsigned i = 0; i < 2 && f->depth > 0; i++)
        post_fork(c, f->depth - 1);
    atomic_fetch_sub(&c->inside, 1);
    free(f);
}

static void post_fork(struct counted *c, unsigned depth)
{
    struct fork *f = malloc(sizeof *f);
    if (f == NULL)
        abort();
    *f = (struct fork){.task = {.run = run_fork}, .of = c, .depth = depth};
    pool_serial_post(&c->serial, &f->task);
}

static void tasks_post_to_their_own_serial(void **state)
{
    (void)state;
    for (unsigned threads = 0; threads <= THREADS_MAX; threads++) {
        struct pool *p = make(threads);
        struct counted c[3] = {{.at = 0}};
        for (unsigned i = 0; i < 3; i++) {
            c[i].depth = 7;
            pool_serial_init(&c[i].serial, p, NULL);
            post_fork(&c[i], 7);
        }
        pool_free(p);
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(c[i].at, (1 << 8) - 1);
            assert_false(c[i].wrong);
        }
    }
}

/* The first task of a serial blocks. What is posted behind it holds no thread: the other thread serves the others. */
static void a_blocked_serial_keeps_one_thread_only(void **state)
{
    (void)state;
    struct pool *p = make(2);
    struct pool_serial blocked;
    struct counted c = {.at = 0};
    struct square behind[20] = {{.in = 0}}, s = {.task = {.run = run_square}};
    struct gate g;
    gate_init(&g);
    pool_serial_init(&blocked, p, NULL);
    pool_serial_init(&c.serial, p, NULL);
    pool_serial_post(&blocked, &g.task);
    gate_entered(&g);
    for (unsigned i = 0; i < 20; i++) {
        behind[i].task.run = run_square;
        pool_serial_post(&blocked, &behind[i].task);
    }
    for (unsigned n = 0; n < STEPS; n++)
        post_step(&c, n);
    pool_lend(p, &s.task);
    pool_wait(p, &s.task);
    pool_serial_wait(&c.serial);
    assert_int_equal(c.at, STEPS);
    gate_open(&g);
    pool_serial_wait(&blocked);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(behind[i].runs, 1);
    pool_free(p);
}

/* Counted by references: one for each post, one of the maker. The last one, which may be given back by any thread, frees it. */
struct disk {
    struct pool_serial serial;
    atomic_uint refs;
    atomic_uint *freed;
};

static void disk_put(struct disk *d)
{
    if (atomic_fetch_sub(&d->refs, 1) != 1)
        return;
    atomic_fetch_add(d->freed, 1);
    free(d);
}

static void disk_left(struct pool_serial *s)
{
    disk_put((struct disk *)((char *)s - offsetof(struct disk, serial)));
}

static void disk_post(struct disk *d, struct pool_task *task)
{
    atomic_fetch_add(&d->refs, 1);
    pool_serial_post(&d->serial, task);
}

static void the_last_reference_frees_the_serial(void **state)
{
    (void)state;
    for (unsigned threads = 0; threads <= THREADS_MAX; threads++) {
        struct pool *p = make(threads);
        static struct square s[ITEMS][2];
        atomic_uint freed = 0;
        for (unsigned i = 0; i < ITEMS; i++) {
            struct disk *d = calloc(1, sizeof *d);
            assert_non_null(d);
            pool_serial_init(&d->serial, p, disk_left);
            d->refs = 1;
            d->freed = &freed;
            s[i][0] = s[i][1] = (struct square){.task = {.run = run_square}};
            disk_post(d, &s[i][0].task);
            disk_post(d, &s[i][1].task);
            disk_put(d);
        }
        pool_free(p);
        assert_int_equal(freed, ITEMS);
        for (unsigned i = 0; i < ITEMS; i++)
            assert_true(s[i][0].runs == 1 && s[i][1].runs == 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_threads_gives_the_same),
        cmocka_unit_test(no_pool_works_in_the_caller),
        cmocka_unit_test(waiting_out_of_order),
        cmocka_unit_test(a_task_may_wait_for_tasks),
        cmocka_unit_test(the_end_waits_for_what_running_tasks_submit),
        cmocka_unit_test(threads_stay_while_a_task_may_submit),
        cmocka_unit_test(a_full_pool_says_so),
        cmocka_unit_test(each_serial_keeps_its_order),
        cmocka_unit_test(tasks_post_to_their_own_serial),
        cmocka_unit_test(a_blocked_serial_keeps_one_thread_only),
        cmocka_unit_test(the_last_reference_frees_the_serial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
