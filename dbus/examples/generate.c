/* A picture from diffused in a C program: Submit, wait for Finished, take the file descriptor.
 *     cc generate.c -o generate $(pkg-config --cflags --libs libsystemd)
 *     ./generate "red apple" apple.png
 * Progress and the end of a job are unicast to its submitter: no match rule, no race between Submit
 * and the first signal. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#define SERVICE "org.diffused.Diffused1"

struct wait {
    char job[128];  /* object path of our job */
    char state[16]; /* "" until it has ended */
};

static int on_message(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct wait *wait = userdata;
    const char *state;
    unsigned picture, step, steps;

    (void)error;
    if (!sd_bus_message_get_path(m) || strcmp(sd_bus_message_get_path(m), wait->job) != 0)
        return 0;
    if (sd_bus_message_is_signal(m, SERVICE ".Job", "Step") > 0 &&
        sd_bus_message_read(m, "uuu", &picture, &step, &steps) > 0)
        (void)fprintf(stderr, "step %u of %u\n", step, steps);
    if (sd_bus_message_is_signal(m, SERVICE ".Job", "Finished") > 0 &&
        sd_bus_message_read(m, "s", &state) > 0)
        (void)snprintf(wait->state, sizeof wait->state, "%s", state);
    return 0;
}

/* The descriptor is a sealed file in memory: its bytes are the PNG, ours to copy or to map. */
static int save(int from, const char *path)
{
    static char buffer[65536];
    FILE *to = fopen(path, "wb");
    ssize_t n;

    if (!to)
        return -errno;
    while ((n = read(from, buffer, sizeof buffer)) > 0)
        (void)fwrite(buffer, 1, (size_t)n, to);
    return fclose(to) != 0 || n < 0 ? -EIO : 0;
}

static int generate(sd_bus *bus, const char *prompt, const char *path, sd_bus_error *error)
{
    sd_bus_message *reply = NULL;
    struct wait wait = {"", ""};
    const char *job;
    int fd;
    int r = sd_bus_add_filter(bus, NULL, on_message, &wait);
    if (r >= 0) /* options: a{sv}, here one of them; all are in the property Options */
        r = sd_bus_call_method(bus, SERVICE, "/org/diffused/Diffused1", SERVICE ".Manager",
                               "Submit", error, &reply, "sa{sv}", prompt, 1, "steps", "u", 20u);
    if (r >= 0)
        r = sd_bus_message_read(reply, "o", &job);
    if (r < 0)
        return r;
    (void)snprintf(wait.job, sizeof wait.job, "%s", job);
    (void)sd_bus_message_unref(reply);
    while (r >= 0 && !wait.state[0]) { /* one message at a time; then sleep until the next */
        r = sd_bus_process(bus, NULL);
        if (r == 0)
            r = sd_bus_wait(bus, UINT64_MAX);
    }
    if (r >= 0 && strcmp(wait.state, "done") != 0)
        return sd_bus_error_setf(error, SERVICE ".Error.Failed", "the job %s", wait.state);
    if (r >= 0)
        r = sd_bus_call_method(bus, SERVICE, wait.job, SERVICE ".Job", "GetResult", error, &reply,
                               "ua{sv}", 0u, 0);
    if (r >= 0)
        r = sd_bus_message_read(reply, "h", &fd); /* the message's own: valid until its unref */
    if (r < 0)
        return r;
    r = save(fd, path);
    (void)sd_bus_message_unref(reply);
    return r;
}

int main(int argc, char **argv)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    sd_bus *bus = NULL;
    int r = argc == 3 ? sd_bus_open_system(&bus) : -EINVAL;

    if (r >= 0)
        r = generate(bus, argv[1], argv[2], &error);
    if (r < 0)
        (void)fprintf(stderr, "generate PROMPT FILE: %s\n",
                      error.message ? error.message : strerror(-r));
    sd_bus_error_free(&error);
    (void)sd_bus_flush_close_unref(bus);
    return r < 0;
}
