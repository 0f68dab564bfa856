/* testbus — a private bus and a daemon with the fake worker, for tests that speak D-Bus.
 *
 * The environment of the test is the fake engine's (tests/fake/engine.c names the knobs): set it
 * before testbus_start_daemon(). Everything is in one temporary folder; failures are cmocka's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-bus.h>

#define TESTBUS_NAME      "org.diffused.Diffused1"
#define TESTBUS_PATH      "/org/diffused/Diffused1"
#define TESTBUS_MANAGER   TESTBUS_NAME ".Manager"
#define TESTBUS_JOB       TESTBUS_NAME ".Job"
#define TESTBUS_ERROR     TESTBUS_NAME ".Error."
#define TESTBUS_PATIENCE  15000 /* msec until a wait fails */
#define TESTBUS_PATH_SIZE 128

struct testbus {
    char *folder;
    char address[256];
    pid_t bus, daemon;
    sd_bus *client;
};

/* cmocka: *state becomes a struct testbus with a bus and a folder with a configuration, no daemon
 * yet. */
int testbus_setup(void **state);
/* Ends both; knobs of the fake engine are unset. */
int testbus_teardown(void **state);

/* The same with a bus that has these <limit>s besides. */
int testbus_setup_limited(void **state, const char *limits);

/* Appends lines to DIR/diffused.conf. */
void testbus_configure(struct testbus *service, const char *lines);

/* Starts the daemon, no more. */
void testbus_spawn_daemon(struct testbus *service);
/* Starts the daemon and waits for its name and this State. */
void testbus_start_daemon(struct testbus *service, const char *state);
/* Ends it with a signal (0: waits for its end) and returns its wait status. */
int testbus_stop_daemon(struct testbus *service, int signal);

/* A connection of its own to the private bus. */
sd_bus *testbus_connect(const struct testbus *service);
/* The same, and the bus takes us for this user with no other group than this; needs root. */
sd_bus *testbus_connect_as(const struct testbus *service, uid_t uid, gid_t gid);

/* Ends the bus with SIGKILL; starts another at the same address. */
void testbus_kill_bus(struct testbus *service);
void testbus_restart_bus(struct testbus *service);

/* Submits with options of the types "sv…" as in sd_bus_message_append() of an a{sv}: a count and
 * triples. ret_path: the job's object. */
void testbus_submit(sd_bus *client, const char *prompt, char ret_path[TESTBUS_PATH_SIZE],
                    const char *options, ...);

/* Calls a method without arguments; the error must have this name (short, of ours), NULL: none. */
void testbus_call(sd_bus *client, const char *path, const char *interface, const char *member,
                  const char *want_error);

/* Waits until the property State of the object is `state`. */
void testbus_wait_state(sd_bus *client, const char *path, const char *state);
/* Malloc'd text of a property of type s. */
char *testbus_get_text(sd_bus *client, const char *path, const char *interface,
                       const char *property);
/* A property of a basic numeric type ('u', 't', 'd', 'b'). */
void testbus_get_number(sd_bus *client, const char *path, const char *property, char type,
                        void *ret_value);
/* Both parts of the property Error, malloc'd. */
void testbus_get_error(sd_bus *client, const char *path, char **ret_name, char **ret_text);

/* Handles what comes in on a connection for that long. */
void testbus_process(sd_bus *client, unsigned msec);

/* The pid of the daemon's worker, waited for; different from `not`. */
pid_t testbus_find_worker(const struct testbus *service, pid_t not_this);
