/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What threads did when, so that their speeds while all of them ran can be told
 * afterwards.  The machine may be busy with other things: spans in which one of
 * the threads was preempted are left out.
 */
#ifndef VIOMMU_BENCH_LOG_H
#define VIOMMU_BENCH_LOG_H

typedef struct BenchSample {
    int64_t ns;     /* wall clock */
    uint64_t count; /* operations done until then */
    long preempted; /* involuntary context switches until then */
    bool gap;       /* what came before it is not of interest */
} BenchSample;

typedef struct BenchLog {
    BenchSample *samples;
    size_t n, cap;
} BenchLog;

void bench_log_init(BenchLog *log, size_t cap);
void bench_log_destroy(BenchLog *log);

/* To be called by the thread itself; false if there is no room left. */
bool bench_log_add(BenchLog *log, uint64_t count, bool gap);

/*
 * Fills @ns with the median time per operation of each of @n logs, and
 * @together with that of all operations taken together.  The spans are those of
 * the first log without its gaps.  Returns the share of spans in which nobody
 * was preempted; if there are next to none, the medians are over all of them.
 * Returns -1, and no medians, if there is no span in which all threads ran.
 */
double bench_log_medians(const BenchLog *logs, int n, double *ns,
                         double *together);

double bench_median(double *values, size_t n);

#endif
