/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include <sys/mman.h>
#include <sys/resource.h>

#include "log.h"

/* A span is long against the time between two samples. */
#define SPAN_NS 1000000
#define CLEAN_MIN 5
#define LOGS_MAX 2

void bench_log_init(BenchLog *log, size_t cap)
{
    /* Not from the heap, whose growth is one of the figures. */
    log->samples = mmap(NULL, cap * sizeof(BenchSample), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (log->samples == MAP_FAILED) {
        error_report("viommu-bench: out of memory");
        exit(1);
    }
    log->n = 0;
    log->cap = cap;
}

void bench_log_destroy(BenchLog *log)
{
    munmap(log->samples, log->cap * sizeof(BenchSample));
}

bool bench_log_add(BenchLog *log, uint64_t count, bool gap)
{
    struct rusage usage;

    getrusage(RUSAGE_THREAD, &usage);
    log->samples[log->n++] = (BenchSample) {
        .ns = get_clock(),
        .count = count,
        .preempted = usage.ru_nivcsw,
        .gap = gap,
    };
    return log->n < log->cap;
}

/* How far the thread was at @ns, and the sample behind that; false if outside. */
static bool look_up(const BenchLog *log, int64_t ns, double *count, size_t *at)
{
    size_t low = 0, high = log->n;
    const BenchSample *a, *b;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (log->samples[mid].ns < ns) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    if (!low || low == log->n) {
        return false;
    }
    a = &log->samples[low - 1];
    b = &log->samples[low];
    *count = a->count + (double)(b->count - a->count) * (ns - a->ns) /
                            (b->ns - a->ns);
    *at = low;
    return true;
}

/* Operations of @log from @from to @to; false if it does not cover them. */
static bool count_between(const BenchLog *log, int64_t from, int64_t to,
                          double *count, bool *clean)
{
    double first, last;
    size_t a, b;

    if (!look_up(log, from, &first, &a) || !look_up(log, to, &last, &b)) {
        return false;
    }
    *count = last - first;
    if (log->samples[a - 1].preempted != log->samples[b].preempted) {
        *clean = false;
    }
    return true;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double bench_median(double *values, size_t n)
{
    qsort(values, n, sizeof(*values), compare_doubles);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* The end of the span that starts with sample @from of @log. */
static size_t span_end(const BenchLog *log, size_t from)
{
    const BenchSample *s = log->samples;
    size_t to = from;

    while (to + 1 < log->n && !s[to + 1].gap &&
           s[to].ns - s[from].ns < SPAN_NS) {
        to++;
    }
    return to;
}

double bench_log_medians(const BenchLog *logs, int n, double *ns,
                         double *together)
{
    /* One row for each thread, one for all together; clean spans come first. */
    double *rows[LOGS_MAX + 1];
    size_t total = 0, clean_total = 0;

    assert(n <= LOGS_MAX);
    for (int i = 0; i <= n; i++) {
        rows[i] = g_new0(double, logs[0].n);
    }

    for (size_t a = 0, b; a < logs[0].n; a = MAX(b, a + 1)) {
        const BenchSample *from = &logs[0].samples[a], *to;
        double counts[LOGS_MAX], sum;
        bool clean, covered = true;
        size_t at;

        b = span_end(&logs[0], a);
        to = &logs[0].samples[b];
        if (b == a) {
            continue;
        }
        sum = counts[0] = to->count - from->count;
        clean = from->preempted == to->preempted;
        for (int i = 1; i < n && covered; i++) {
            covered = count_between(&logs[i], from->ns, to->ns, &counts[i],
                                    &clean) && counts[i] > 0;
            sum += counts[i];
        }
        if (!covered) {
            continue;
        }
        at = total++;
        for (int i = 0; i <= n; i++) {
            double value = (to->ns - from->ns) / (i < n ? counts[i] : sum);

            if (clean) {
                rows[i][at] = rows[i][clean_total];
                rows[i][clean_total] = value;
            } else {
                rows[i][at] = value;
            }
        }
        clean_total += clean;
    }

    for (int i = 0; i <= n; i++) {
        if (total) {
            size_t used = clean_total >= CLEAN_MIN ? clean_total : total;

            *(i < n ? &ns[i] : together) = bench_median(rows[i], used);
        }
        g_free(rows[i]);
    }
    return total ? (double)clean_total / total : -1;
}
