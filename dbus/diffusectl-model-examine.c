/* An installed model against its SHA256SUMS, and whether others could change it. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dbus/diffusectl-model.h"
#include "vk/base/cleanup.h"

struct examination {
    enum model_examine how;
    struct model_report *report;
    struct model_sums sums;
};

static void examination_done(struct examination *e)
{
    model_sums_done(&e->sums);
}

static int add_problem(struct model_report *report, struct fault *f, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int add_problem(struct model_report *report, struct fault *f, const char *format, ...)
{
    va_list args;
    char **place = array_push(&report->problems);

    va_start(args, format);
    if (place && vasprintf(place, format, args) < 0)
        *place = NULL;
    va_end(args);
    return place && *place ? 0 : fault_set(f, -ENOMEM, "out of memory");
}

static int compare_hash(struct examination *e, const struct model_file *file, const char *want,
                        struct fault *f)
{
    char hex[SHA256_HEX_SIZE];
    int r = e->how == MODEL_EXAMINE_HASHES ? model_hash_file(file, hex, f) : 0;

    if (r < 0 || e->how != MODEL_EXAMINE_HASHES || strcmp(hex, want) == 0)
        return r;
    return add_problem(e->report, f, "%s: damaged: its hash is not the one in " MODEL_SUMS,
                       file->path);
}

static int examine_file(const struct model_file *file, void *userdata, struct fault *f)
{
    struct examination *e = userdata;
    struct model_sum *sum = model_sums_find(&e->sums, file->path);
    int r = 0;

    if (file->fate != MODEL_COPY)
        return 0;
    e->report->files++;
    e->report->bytes += file->size;
    if (file->st->st_mode & (S_IWGRP | S_IWOTH))
        r = add_problem(e->report, f, "%s: its group or all may write to it (mode %04o)",
                        file->path, (unsigned)file->st->st_mode & 07777);
    if (r >= 0 && sum) {
        sum->seen = true;
        return compare_hash(e, file, sum->hex, f);
    }
    if (r >= 0 && e->report->has_sums)
        r = add_problem(e->report, f, "%s: not listed in " MODEL_SUMS, file->path);
    return r;
}

int model_examine(int directory, enum model_examine how, struct model_report *ret_report,
                  struct fault *f)
{
    _cleanup_(model_report_done) struct model_report report = {0};
    _cleanup_(examination_done) struct examination e = {.how = how, .report = &report};

    int r = model_sums_read(directory, &e.sums, f);
    report.has_sums = r >= 0;
    if (r == -ENOENT)
        r = 0;
    else if (r == -EINVAL || r == -EFBIG)
        r = add_problem(&report, f, "%s", f ? f->text : MODEL_SUMS ": damaged");
    if (r >= 0)
        r = model_walk(directory, examine_file, &e, f);
    for (size_t i = 0; r >= 0 && i < e.sums.list.count; i++) {
        if (!e.sums.list.items[i].seen)
            r = add_problem(&report, f, "%s: missing", e.sums.list.items[i].path);
    }
    if (r < 0)
        return r;
    *ret_report = report;
    report = (struct model_report){0};
    return 0;
}

void model_report_done(struct model_report *report)
{
    for (size_t i = 0; i < report->problems.count; i++)
        free(report->problems.items[i]);
    array_done(&report->problems);
}
