/* crash — kills the manager, the worker, or both, at random moments under mixed load, again and
 * again, and holds what is on disk against what every client was told.
 *
 * A private bus, a daemon with the fake engine, three clients of different users on the bus and one
 * that drops tickets. Each round ends with a kill; the dead daemon's spool is looked at after every
 * kill, and against all histories every CHECK_EVERY rounds. In the end the queue drains, the daemon
 * is stopped, and everything must have come to its end. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <time.h>

#include "tests/support/check.h"
#include "tests/support/crash_client.h"
#include "tests/support/faults.h"
#include "tests/support/socket.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"

#define NAME          "org.diffused.Diffused1"
#define CLIENTS       4 /* the last one drops tickets */
#define CHECK_EVERY   50
#define PATIENCE_MSEC 60000
#define PATH_SIZE     512

static const char usage[] =
    "usage: crash [--rounds N] [--seed N] [--folder DIR] [--keep]\n"
    "  --folder DIR   where the run's folder is made; default /dev/shm, TMPDIR or /tmp\n"
    "  --keep         leaves the folder there\n"
    "Exit status 1 and a line for each violation; the seed given again makes the same kills.\n";

static const char configuration[] = "[model]\npath = model\n"
                                    "[spool]\nkeep_free_megabytes = 0\nretain_jobs = 0\n"
                                    "[limits]\nqueue = 1000\nuser_jobs = 0\ncalls_per_second = 0\n"
                                    "[access]\ngroup = %s\n"
                                    "[defaults]\nsteps = 3\nwidth = 64\nheight = 64\n";

static const char bus_configuration[] =
    "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"\n"
    " \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n"
    "<busconfig><type>system</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>\n"
    "<policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\n"
    "<allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>\n";

enum victim { VICTIM_MANAGER, VICTIM_WORKER, VICTIM_BOTH, VICTIM_COUNT };

struct crash {
    unsigned rounds;
    uint64_t seed, random;
    const char *base;
    bool keep;
    char folder[PATH_SIZE], spool[PATH_SIZE], drop[PATH_SIZE], log_path[PATH_SIZE];
    pid_t bus, daemon, clients[CLIENTS];
    struct crash_log *logs[CLIENTS];
    uid_t uids[CLIENTS];
    char group[64];
    gid_t gid;
    sd_bus *connection;
    unsigned kills[VICTIM_COUNT], early, violations, starts;
};

static void sleep_usec(unsigned usec)
{
    (void)nanosleep(&(struct timespec){usec / 1000000, (long)(usec % 1000000) * 1000}, NULL);
}

static unsigned below(struct crash *c, unsigned n)
{
    return (unsigned)(faults_random(&c->random) % n);
}

static int fail(const char *what)
{
    (void)fprintf(stderr, "crash: %s: %s\n", what, strerror(errno));
    return -1;
}

/* --- folder, users, processes ----------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static int write_file(const struct crash *c, const char *name,
                                                            const char *format, ...)
{
    char path[2 * PATH_SIZE];
    va_list args;

    (void)snprintf(path, sizeof path, "%s/%s", c->folder, name);
    FILE *file = fopen(path, "w");
    if (!file)
        return fail(path);
    va_start(args, format);
    int r = vfprintf(file, format, args);
    va_end(args);
    return fclose(file) == 0 && r >= 0 ? 0 : fail(path);
}

/* Three users of one group, without changing the machine: those of nobody's own group. */
static void find_users(struct crash *c)
{
    const struct passwd *nobody = getpwnam("nobody"), *user;
    const struct group *group = nobody ? getgrgid(nobody->pw_gid) : NULL;
    unsigned count = 0;

    for (unsigned i = 0; i < CLIENTS; i++)
        c->uids[i] = geteuid();
    (void)snprintf(c->group, sizeof c->group, "%s", group ? group->gr_name : "root");
    c->gid = group ? group->gr_gid : getegid();
    if (!group || geteuid() != 0)
        return;
    setpwent();
    while (count + 1 < CLIENTS && (user = getpwent()))
        if (user->pw_gid == c->gid && user->pw_uid != 0)
            c->uids[count++] = user->pw_uid;
    endpwent();
    if (count > 0)
        c->uids[CLIENTS - 1] = c->uids[count - 1];
}

static int make_folder(struct crash *c)
{
    char path[2 * PATH_SIZE];

    (void)snprintf(c->folder, sizeof c->folder, "%s/diffused-crash-XXXXXX", c->base);
    if (!mkdtemp(c->folder) || chmod(c->folder, 0755) < 0)
        return fail(c->folder);
    (void)snprintf(path, sizeof path, "%s/model", c->folder);
    if (mkdir(path, 0755) < 0)
        return fail(path);
    (void)snprintf(c->spool, sizeof c->spool, "%.400s/spool", c->folder);
    (void)snprintf(c->log_path, sizeof c->log_path, "%.400s/log", c->folder);
    (void)snprintf(c->drop, sizeof c->drop, "%.400s/drop", c->folder);
    if (mkdir(c->drop, 0700) < 0 || chown(c->drop, geteuid(), c->gid) < 0 ||
        chmod(c->drop, 03770) < 0) /* as tmpfiles.d has it */
        return fail(c->drop);
    if (write_file(c, "diffused.conf", configuration, c->group) < 0)
        return -1;
    return write_file(c, "bus.conf", bus_configuration, c->folder);
}

static pid_t spawn(const struct crash *c, char *const argv[])
{
    posix_spawn_file_actions_t actions;
    pid_t pid = -1;

    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, c->log_path,
                                           O_WRONLY | O_CREAT | O_APPEND, 0600);
    (void)posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    int r = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    errno = r;
    return r != 0 ? fail(argv[0]) : pid;
}

static int start_bus(struct crash *c)
{
    char option[2 * PATH_SIZE], socket[2 * PATH_SIZE], address[2 * PATH_SIZE];
    char program[] = "dbus-daemon", nofork[] = "--nofork";
    char *argv[] = {program, nofork, option, NULL};

    (void)snprintf(option, sizeof option, "--config-file=%s/bus.conf", c->folder);
    (void)snprintf(socket, sizeof socket, "%s/bus", c->folder);
    (void)snprintf(address, sizeof address, "unix:path=%s/bus", c->folder);
    (void)setenv("DBUS_SYSTEM_BUS_ADDRESS", address, 1);
    c->bus = spawn(c, argv);
    for (unsigned waited = 0; c->bus > 0 && !socket_is_served(socket); waited += 5) {
        if (waited > PATIENCE_MSEC)
            return fail("the bus does not come up");
        sleep_usec(5000);
    }
    return c->bus > 0 && sd_bus_open_system(&c->connection) >= 0 ? 0 : fail("private bus");
}

/* We are BUILD/tests/crash. */
static void program_path(const char *name, char path[PATH_SIZE])
{
    char self[PATH_SIZE] = "";

    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        self[0] = '\0';
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(self, '/');
        if (slash)
            *slash = '\0';
    }
    (void)snprintf(path, PATH_SIZE, "%.400s/%s", self, name);
}

static int start_daemon(struct crash *c)
{
    char program[PATH_SIZE], worker[PATH_SIZE], devel[] = "--devel", option[] = "--worker";
    char *argv[] = {program, devel, c->folder, option, worker, NULL};

    program_path("diffused", program);
    program_path("tests/fake-worker", worker);
    c->daemon = spawn(c, argv);
    c->starts++;
    return c->daemon > 0 ? 0 : -1;
}

static int start_clients(struct crash *c)
{
    for (unsigned i = 0; i < CLIENTS; i++) {
        c->logs[i] = mmap(NULL, sizeof *c->logs[i], PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (c->logs[i] == MAP_FAILED)
            return fail("history");
        const struct crash_client client = {.uid = c->uids[i],
                                            .gid = c->gid,
                                            .random = c->seed + i,
                                            .drop = i == CLIENTS - 1 ? c->drop : NULL,
                                            .log = c->logs[i]};
        c->clients[i] = fork();
        if (c->clients[i] == 0)
            _exit(crash_client_run(&client));
        if (c->clients[i] < 0)
            return fail("fork");
    }
    return 0;
}

/* The worker that serves, from /proc; 0 when there is none just now. */
static pid_t find_worker(const struct crash *c)
{
    char path[64], line[1024];
    pid_t found = 0;
    int child;

    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)c->daemon, (int)c->daemon);
    _cleanup_(fclosep) FILE *children = fopen(path, "re");
    while (children && fscanf(children, "%d", &child) == 1) {
        (void)snprintf(path, sizeof path, "/proc/%d/cmdline", child);
        _cleanup_(fclosep) FILE *command = fopen(path, "re");
        size_t n = command ? fread(line, 1, sizeof line, command) : 0;
        if (memmem(line, n, "--serve", 7))
            found = child;
    }
    return found;
}

/* --- looking ---------------------------------------------------------------------------------- */

static void complain(struct crash *c, const char *what)
{
    c->violations++;
    (void)printf("round %u, seed %" PRIu64 ": %s\n", c->kills[0] + c->kills[1] + c->kills[2],
                 c->seed, what);
    (void)fflush(stdout);
}

/* All histories, one after the other; each client's own order is what counts. */
static char *gather(const struct crash *c)
{
    size_t size = 1, at = 0, length[CLIENTS];

    for (unsigned i = 0; i < CLIENTS; i++)
        size += length[i] = c->logs[i]->length;
    char *text = malloc(size);
    for (unsigned i = 0; text && i < CLIENTS; i++) {
        memcpy(text + at, c->logs[i]->text, length[i]);
        at += length[i];
    }
    if (text)
        text[at] = '\0';
    return text;
}

static void check(struct crash *c, bool with_history, unsigned flags)
{
    if (with_history)
        sleep_usec(50000); /* clients write down what they were told, or that they were not */
    _cleanup_(freep) char *history = with_history ? gather(c) : NULL;
    _cleanup_(freep) char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        return;
    int r = check_spool(&(struct check_options){.spool = c->spool,
                                                .drop = with_history ? c->drop : NULL,
                                                .history = history,
                                                .flags = flags,
                                                .uid = -1,
                                                .out = out});
    (void)fclose(out);
    if (r != 0)
        complain(c, text);
}

/* --- rounds ----------------------------------------------------------------------------------- */

static bool wait_for_name(struct crash *c)
{
    int status;

    for (unsigned waited = 0; waited < PATIENCE_MSEC; waited++) {
        if (sd_bus_get_name_creds(c->connection, NAME, 0, NULL) >= 0)
            return true;
        if (waitpid(c->daemon, &status, WNOHANG) == c->daemon) {
            complain(c, "the daemon ended by itself");
            c->daemon = 0;
            return false;
        }
        sleep_usec(1000);
    }
    complain(c, "the daemon does not come up");
    return false;
}

static void kill_manager(struct crash *c)
{
    int status = 0;

    (void)kill(c->daemon, SIGKILL);
    (void)waitpid(c->daemon, &status, 0);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        complain(c, "the daemon ended before it was killed");
    c->daemon = 0;
}

/* One kill: early in the start, or somewhere in the work. */
static bool run_round(struct crash *c, unsigned round)
{
    enum victim victim = below(c, 10) < 6 ? VICTIM_MANAGER : VICTIM_WORKER + below(c, 2);
    bool is_early = below(c, 5) == 0, is_long = below(c, 50) == 0;
    pid_t worker;

    if (c->daemon <= 0 && start_daemon(c) < 0)
        return false;
    if (is_early) {
        victim = VICTIM_MANAGER;
        sleep_usec(below(c, 40000));
        c->early++;
    } else {
        if (!wait_for_name(c))
            return false;
        /* long enough, now and then, for files nobody was seen to drop */
        sleep_usec(is_long ? 2200000 : below(c, 60000));
    }
    if (victim != VICTIM_MANAGER && (worker = find_worker(c)) > 0)
        (void)kill(worker, SIGKILL);
    if (victim != VICTIM_WORKER)
        kill_manager(c);
    c->kills[victim]++;
    if (c->daemon <= 0 && access(c->spool, F_OK) == 0) /* the first one may not have come so far */
        check(c, round % CHECK_EVERY == CHECK_EVERY - 1, CHECK_RUNNING);
    return true;
}

/* --- the end ---------------------------------------------------------------------------------- */

static bool is_empty(const char *path)
{
    _cleanup_(closedirp) DIR *dir = opendir(path);
    const struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.' && entry->d_type != DT_DIR)
            return false;
    return true;
}

static bool has_folder(const char *path)
{
    _cleanup_(closedirp) DIR *dir = opendir(path);
    const struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            return true;
    return false;
}

static bool is_drained(const struct crash *c)
{
    char path[2 * PATH_SIZE];
    bool busy = !is_empty(c->drop);

    (void)snprintf(path, sizeof path, "%s/working", c->drop);
    busy |= has_folder(path);
    (void)snprintf(path, sizeof path, "%s/queued", c->spool);
    busy |= has_folder(path);
    (void)snprintf(path, sizeof path, "%s/running", c->spool);
    return !busy && !has_folder(path);
}

static void drain(struct crash *c)
{
    int status = 0;

    for (unsigned i = 0; i < CLIENTS; i++)
        c->logs[i]->stop = true;
    for (unsigned i = 0; i < CLIENTS; i++) {
        (void)waitpid(c->clients[i], &status, 0);
        if (status != 0)
            complain(c, "a client failed");
        c->clients[i] = 0;
    }
    if (c->daemon <= 0 && start_daemon(c) < 0)
        return;
    if (!wait_for_name(c))
        return;
    for (unsigned waited = 0; !is_drained(c); waited += 20) {
        if (waited > PATIENCE_MSEC) {
            complain(c, "the queue does not drain");
            break;
        }
        sleep_usec(20000);
    }
    (void)kill(c->daemon, SIGTERM);
    (void)waitpid(c->daemon, &status, 0);
    c->daemon = 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        complain(c, "the daemon does not end cleanly");
    check(c, true, CHECK_DRAINED | CHECK_IDLE);
    if (check_file_for_text(c->log_path, CRASH_CANARY, stdout) != 0)
        complain(c, "a prompt is in the log");
}

static void report(const struct crash *c)
{
    unsigned acknowledged = 0, repeated = 0, unanswered = 0, dropped = 0;
    unsigned rounds = c->kills[VICTIM_MANAGER] + c->kills[VICTIM_WORKER] + c->kills[VICTIM_BOTH];

    for (unsigned i = 0; i < CLIENTS; i++) {
        acknowledged += c->logs[i]->acknowledged;
        repeated += c->logs[i]->repeated;
        unanswered += c->logs[i]->unanswered;
        dropped += c->logs[i]->dropped;
    }
    (void)printf("crash: seed %" PRIu64 ": %u rounds: killed manager %u (%u of them in its start), "
                 "worker %u, both %u; %u jobs acknowledged, %u tokens repeated, %u calls "
                 "unanswered, %u tickets dropped; %u violations, 95 %% bound %.3f %%\n",
                 c->seed, rounds, c->kills[VICTIM_MANAGER], c->early, c->kills[VICTIM_WORKER],
                 c->kills[VICTIM_BOTH], acknowledged, repeated, unanswered, dropped, c->violations,
                 rounds ? 300.0 / rounds : 100.0);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void end(pid_t *pid, int signal)
{
    if (*pid > 0) {
        (void)kill(*pid, signal);
        (void)waitpid(*pid, NULL, 0);
    }
    *pid = 0;
}

static void tear_down(struct crash *c)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        end(&c->clients[i], SIGKILL);
    end(&c->daemon, SIGKILL);
    sd_bus_flush_close_unref(c->connection);
    end(&c->bus, SIGTERM);
    if (c->keep || c->violations > 0)
        (void)printf("crash: left in %s\n", c->folder);
    else
        (void)nftw(c->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int parse(int argc, char **argv, struct crash *c)
{
    static const struct option options[] = {
        {"rounds", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 's'},
        {"folder", required_argument, NULL, 'f'},
        {"keep", no_argument, NULL, 'k'},
        {0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'r')
            c->rounds = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 's')
            c->seed = strtoull(optarg, NULL, 10);
        else if (option == 'f')
            c->base = optarg;
        else if (option == 'k')
            c->keep = true;
        else
            return -EINVAL;
    }
    return optind == argc ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
    const char *base = getenv("TMPDIR");
    struct crash c = {.rounds = 200, .seed = 1, .base = base ? base : "/tmp"};
    int r;

    if (access("/dev/shm", W_OK) == 0)
        c.base = "/dev/shm";
    if (parse(argc, argv, &c) < 0)
        return fputs(usage, stderr) < 0 ? 2 : 2;
    c.random = c.seed;
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "1", 1);
    find_users(&c);
    r = make_folder(&c) < 0 || start_bus(&c) < 0 || start_clients(&c) < 0 ? -1 : 0;
    for (unsigned round = 0; r == 0 && round < c.rounds; round++)
        r = run_round(&c, round) ? 0 : -1;
    if (r == 0)
        drain(&c);
    if (c.logs[CLIENTS - 1])
        report(&c);
    tear_down(&c);
    return r < 0 ? 2 : c.violations > 0;
}
