/* diffusectl-text — values of the bus as JSON and as words. Texts come from users and models:
 * nothing of them may steer a terminal. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <time.h>
#include <utf8proc.h>

#include "dbus/diffusectl.h"
#include "vk/base/cleanup.h"

/* Characters that a terminal acts on or that turn the reading direction around. */
static bool is_steering(utf8proc_int32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || c == 0x200e || c == 0x200f ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

/* Steps over one character: its code point, or -1 and one byte where there is none. */
static utf8proc_int32_t next_character(const char **text)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)*text, -1, &c);

    *text += n > 0 ? n : 1;
    return n > 0 ? c : -1;
}

void ctl_write_escaped(FILE *out, const char *text)
{
    while (*text) {
        const char *start = text;
        utf8proc_int32_t c = next_character(&text);

        if (c < 0)
            (void)fprintf(out, "\\x%02x", (unsigned char)*start);
        else if (c == '\n')
            (void)fputs("\\n", out);
        else if (c == '\t')
            (void)fputs("\\t", out);
        else if (is_steering(c))
            (void)fprintf(out, c < 0x80 ? "\\x%02x" : "\\u%04x", (unsigned)c);
        else
            (void)fwrite(start, 1, (size_t)(text - start), out);
    }
}

void ctl_write_json_string(FILE *out, const char *text)
{
    (void)fputc('"', out);
    while (*text) {
        const char *start = text;
        utf8proc_int32_t c = next_character(&text);

        if (c < 0)
            (void)fputs("\\ufffd", out);
        else if (c == '"' || c == '\\')
            (void)fprintf(out, "\\%c", (int)c);
        else if (c == '\n')
            (void)fputs("\\n", out);
        else if (is_steering(c))
            (void)fprintf(out, "\\u%04x", (unsigned)c);
        else
            (void)fwrite(start, 1, (size_t)(text - start), out);
    }
    (void)fputc('"', out);
}

/* The shortest notation that reads back as the same number. */
static void write_double(FILE *out, double x)
{
    char text[32];

    if (!isfinite(x)) {
        (void)fputs("null", out);
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            break;
    }
    (void)fputs(text, out);
}

/* Any basic value that is no text, read as the widest of its kind. */
struct number {
    enum {
        NUMBER_UNSIGNED,
        NUMBER_SIGNED,
        NUMBER_DOUBLE,
        NUMBER_BOOL,
    } kind;
    uint64_t u;
    int64_t i;
    double d;
};

static int read_number(sd_bus_message *m, char type, struct number *ret)
{
    union {
        uint8_t y;
        uint16_t q;
        int16_t n;
        uint32_t u;
        int32_t i;
        uint64_t t;
        int64_t x;
        double d;
        int b;
    } v = {.t = 0};
    int r = sd_bus_message_read_basic(m, type, &v);

    *ret = (struct number){0};
    if (r < 0)
        return r;
    switch (type) {
    case 'b':
        ret->kind = NUMBER_BOOL;
        ret->u = v.b != 0;
        return 0;
    case 'd':
        ret->kind = NUMBER_DOUBLE;
        ret->d = v.d;
        return 0;
    case 'n':
    case 'i':
    case 'x':
        ret->kind = NUMBER_SIGNED;
        ret->i = type == 'n' ? v.n : type == 'i' ? v.i : v.x;
        return 0;
    default:
        ret->u = type == 'y' ? v.y : type == 'q' ? v.q : type == 't' ? v.t : v.u;
        return 0;
    }
}

static bool is_text(char type)
{
    return type == 's' || type == 'o' || type == 'g';
}

static int write_json_basic(FILE *out, sd_bus_message *m, char type)
{
    struct number n;
    const char *text;

    if (is_text(type)) {
        int r = sd_bus_message_read_basic(m, type, &text);
        if (r >= 0)
            ctl_write_json_string(out, text);
        return r < 0 ? r : 0;
    }
    if (!strchr("ybnqiuxtd", type))
        return -EPROTO;
    int r = read_number(m, type, &n);
    if (r < 0)
        return r;
    if (n.kind == NUMBER_BOOL)
        (void)fputs(n.u ? "true" : "false", out);
    else if (n.kind == NUMBER_DOUBLE)
        write_double(out, n.d);
    else if (n.kind == NUMBER_SIGNED)
        (void)fprintf(out, "%" PRId64, n.i);
    else
        (void)fprintf(out, "%" PRIu64, n.u);
    return 0;
}

/* One element of a dictionary: "key": value. */
static int write_json_entry(FILE *out, sd_bus_message *m, const char *contents)
{
    int r = sd_bus_message_enter_container(m, 'e', contents);

    if (r < 0)
        return r;
    r = ctl_write_json(out, m);
    if (r < 0)
        return r;
    (void)fputs(": ", out);
    r = ctl_write_json(out, m);
    if (r < 0)
        return r;
    return sd_bus_message_exit_container(m);
}

static int write_json_container(FILE *out, sd_bus_message *m, char type, const char *contents)
{
    char brackets[] = "[]", inner[256] = "";
    bool is_dictionary = type == 'a' && contents[0] == '{';
    int r;

    if (is_dictionary) {
        memcpy(brackets, "{}", 2);
        (void)snprintf(inner, sizeof inner, "%.*s", (int)strlen(contents) - 2, contents + 1);
    }
    r = sd_bus_message_enter_container(m, type, contents);
    if (r < 0)
        return r;
    (void)fputc(brackets[0], out);
    for (unsigned i = 0; (r = sd_bus_message_at_end(m, 0)) == 0; i++) {
        if (i)
            (void)fputs(", ", out);
        r = is_dictionary ? write_json_entry(out, m, inner) : ctl_write_json(out, m);
        if (r < 0)
            return r;
    }
    (void)fputc(brackets[1], out);
    return r < 0 ? r : sd_bus_message_exit_container(m);
}

int ctl_write_json(FILE *out, sd_bus_message *message)
{
    const char *contents;
    char type;
    int r = sd_bus_message_peek_type(message, &type, &contents);

    if (r <= 0)
        return r < 0 ? r : -ENODATA;
    if (type == 'a' || type == 'r')
        r = write_json_container(out, message, type, contents);
    else if (type != 'v')
        r = write_json_basic(out, message, type);
    else {
        r = sd_bus_message_enter_container(message, 'v', contents);
        if (r >= 0)
            r = ctl_write_json(out, message);
        if (r >= 0)
            r = sd_bus_message_exit_container(message);
    }
    return r < 0 ? r : 0;
}

void ctl_format_duration(uint64_t usec, char *ret_text, size_t size)
{
    uint64_t seconds = usec / 1000000 + (usec % 1000000 >= 500000);

    if (usec == UINT64_MAX)
        (void)snprintf(ret_text, size, "unknown");
    else if (seconds < 3600)
        (void)snprintf(ret_text, size, "%" PRIu64 ":%02" PRIu64, seconds / 60, seconds % 60);
    else
        (void)snprintf(ret_text, size, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, seconds / 3600,
                       seconds / 60 % 60, seconds % 60);
}

static void write_time(FILE *out, uint64_t usec)
{
    time_t seconds = (time_t)(usec / 1000000);
    struct tm tm;
    char text[64];

    if (usec == 0 || !localtime_r(&seconds, &tm) ||
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S %Z", &tm) == 0)
        (void)snprintf(text, sizeof text, "-");
    (void)fputs(text, out);
}

static void write_bytes(FILE *out, uint64_t bytes)
{
    if (bytes >= UINT64_C(1) << 30)
        (void)fprintf(out, "%.1f GiB", (double)bytes / (1 << 30));
    else
        (void)fprintf(out, "%.1f MiB", (double)bytes / (1 << 20));
}

static void write_number(FILE *out, const struct number *n, enum ctl_unit unit)
{
    char text[32];

    if (n->kind == NUMBER_BOOL)
        (void)fputs(n->u ? "yes" : "no", out);
    else if (n->kind == NUMBER_SIGNED)
        (void)fprintf(out, "%" PRId64, n->i);
    else if (n->kind == NUMBER_DOUBLE && unit == CTL_UNIT_FRACTION)
        (void)fprintf(out, "%.0f %%", n->d * 100);
    else if (n->kind == NUMBER_DOUBLE)
        write_double(out, n->d);
    else if (unit == CTL_UNIT_TIME)
        write_time(out, n->u);
    else if (unit == CTL_UNIT_BYTES)
        write_bytes(out, n->u);
    else if (unit == CTL_UNIT_DURATION) {
        ctl_format_duration(n->u, text, sizeof text);
        (void)fputs(text, out);
    } else
        (void)fprintf(out, "%" PRIu64, n->u);
}

int ctl_write_value(FILE *out, sd_bus_message *message, enum ctl_unit unit)
{
    const char *contents, *text;
    char type;
    int r = sd_bus_message_peek_type(message, &type, &contents);

    if (r <= 0)
        return r < 0 ? r : -ENODATA;
    if (is_text(type)) {
        r = sd_bus_message_read_basic(message, type, &text);
        if (r >= 0)
            ctl_write_escaped(out, text);
        return r < 0 ? r : 0;
    }
    if (!strchr("arv", type)) {
        struct number n;
        r = read_number(message, type, &n);
        if (r >= 0)
            write_number(out, &n, unit);
        return r < 0 ? r : 0;
    }
    if (contents[0] == '{')
        return ctl_write_json(out, message);
    r = sd_bus_message_enter_container(message, type, contents);
    for (unsigned i = 0; r >= 0 && sd_bus_message_at_end(message, 0) == 0; i++) {
        if (i)
            (void)fputs(" ", out);
        r = ctl_write_value(out, message, unit);
    }
    return r < 0 ? r : sd_bus_message_exit_container(message) < 0 ? -EPROTO : 0;
}

bool ctl_parse_duration(const char *text, uint64_t unit_usec, uint64_t *ret_usec)
{
    static const struct {
        const char *name;
        double usec;
    } units[] = {{"us", 1},    {"usec", 1},   {"ms", 1e3}, {"msec", 1e3}, {"s", 1e6},
                 {"sec", 1e6}, {"min", 60e6}, {"m", 60e6}, {"h", 3600e6}, {"d", 86400e6}};
    double sum = 0;

    for (const char *p = text; *p || p == text;) {
        char *end;
        double factor = (double)unit_usec, number = strtod(p, &end);
        if (end == p || !strchr("0123456789", *p)) /* no sign, no "nan" */
            return false;
        size_t n = strspn(end, "abcdefghijklmnopqrstuvwxyz"), i = 0;
        while (n > 0 && i < ARRAY_SIZE(units) &&
               (strncmp(units[i].name, end, n) != 0 || units[i].name[n]))
            i++;
        if (n > 0 && i == ARRAY_SIZE(units))
            return false;
        if (n > 0)
            factor = units[i].usec;
        else if (*end)
            return false; /* a number without a unit stands alone */
        sum += number * factor;
        p = end + n + strspn(end + n, " ");
    }
    if (!(sum < 9e18))
        return false;
    *ret_usec = (uint64_t)(sum + 0.5);
    return true;
}
