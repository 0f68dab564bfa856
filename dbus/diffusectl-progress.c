#include "dbus/diffusectl-progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "dbus/diffusectl.h"

#define PLAIN_PAUSE_USEC UINT64_C(1000000)
#define BAR_MIN          10
#define BAR_MAX          40

void progress_init(struct progress *p, uint64_t id)
{
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");

    *p = (struct progress){.id = id, .words = (int)strlen("step 10/50  1.0 steps/s  0:00 left")};
    p->terminal = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
    p->colour = p->terminal && !(no_color && no_color[0]);
}

static int terminal_columns(void)
{
    struct winsize size;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col < 20)
        return 80;
    return size.ws_col;
}

void progress_clear(struct progress *p)
{
    if (p->drawn)
        (void)fputs("\r\033[K", stderr);
    p->drawn = false;
    (void)fflush(stderr);
}

void progress_wait(struct progress *p, const char *text)
{
    if (p->counting)
        return;
    if (p->terminal) {
        int room = terminal_columns() - 1;
        (void)fprintf(stderr, "\r\033[K%.*s", room, text);
        p->drawn = true;
        (void)fflush(stderr);
        return;
    }
    if (strcmp(p->waiting, text) == 0)
        return;
    (void)snprintf(p->waiting, sizeof p->waiting, "%s", text);
    (void)fprintf(stderr, "%s\n", text);
}

/* "picture 1/2  step 12/21  3.4 steps/s  0:12 left"; the parts not known are left out. */
static void describe(const struct progress *p, const struct progress_step *s, char *text,
                     size_t size)
{
    char left[32], picture[40] = "", rate[40] = "", eta[48] = "";
    uint32_t steps_done = s->picture * s->steps + s->step - p->first_step;
    double seconds = (double)(s->now_usec - p->first_usec) / 1e6;

    if (p->pictures > 1)
        (void)snprintf(picture, sizeof picture, "picture %u/%u  ", s->picture + 1, p->pictures);
    else if (p->pictures == 0 && s->picture > 0)
        (void)snprintf(picture, sizeof picture, "picture %u  ", s->picture + 1);
    if (steps_done > 0 && seconds > 0.001) {
        double per_second = steps_done / seconds;
        if (per_second >= 1)
            (void)snprintf(rate, sizeof rate, "  %.1f steps/s", per_second);
        else
            (void)snprintf(rate, sizeof rate, "  %.1f s/step", 1 / per_second);
    }
    if (s->eta_usec != UINT64_MAX) {
        ctl_format_duration(s->eta_usec, left, sizeof left);
        (void)snprintf(eta, sizeof eta, "  %s left", left);
    }
    (void)snprintf(text, size, "%sstep %u/%u%s%s", picture, s->step, s->steps, rate, eta);
}

static void draw_bar(struct progress *p, const struct progress_step *s, const char *text)
{
    char head[48];
    uint32_t pictures = p->pictures ? p->pictures : s->picture + 1;
    double fraction = s->steps ? (s->picture + (double)s->step / s->steps) / pictures : 0;
    /* The bar gives way to longer words, but does not jump back. */
    p->words = (int)strlen(text) > p->words ? (int)strlen(text) : p->words;
    int used = snprintf(head, sizeof head, "job %" PRIu64 "  ", p->id) + p->words + 11;
    int columns = terminal_columns(), width = columns - used;

    fraction = fraction > 1 ? 1 : fraction;
    width = width > BAR_MAX ? BAR_MAX : width;
    if (width < BAR_MIN) {
        (void)fprintf(stderr, "\r\033[K%.*s", columns - 1, text);
        return;
    }
    int full = (int)(fraction * width);
    (void)fprintf(stderr, "\r\033[K%s[%s", head, p->colour ? "\033[32m" : "");
    for (int i = 0; i < width; i++)
        (void)fputc(i < full ? '=' : i == full ? '>' : ' ', stderr);
    (void)fprintf(stderr, "%s] %3.0f %%  %s", p->colour ? "\033[0m" : "", fraction * 100, text);
}

void progress_step(struct progress *p, const struct progress_step *s)
{
    char text[192];

    if (!p->counting) {
        p->counting = true;
        p->first_usec = s->now_usec;
        p->first_step = s->picture * s->steps + s->step;
    }
    describe(p, s, text, sizeof text);
    if (p->terminal) {
        draw_bar(p, s, text);
        p->drawn = true;
        (void)fflush(stderr);
        return;
    }
    /* the first of all, the last of each picture, and one a second */
    if (p->last_line_usec && s->step != s->steps &&
        s->now_usec - p->last_line_usec < PLAIN_PAUSE_USEC)
        return;
    p->last_line_usec = s->now_usec;
    (void)fprintf(stderr, "job %" PRIu64 "  %s\n", p->id, text);
}
