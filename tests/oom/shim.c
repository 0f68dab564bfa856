/* The allocator that fails on demand: preloaded (LD_PRELOAD) before the C library's or the
 * sanitizer's, to which it passes on what it does not refuse. */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/oom/control.h"

#define OBJECTS_MAX 64
#define EARLY_BYTES 65536

enum kind {
    KIND_PROGRAM,
    KIND_OURS,
    KIND_SYSTEMD,
    KIND_LIBC, /* and this shim: ask its caller */
    KIND_OTHER,
};

struct object {
    uintptr_t begin, end, base;
    enum kind kind;
};

static struct object objects[OBJECTS_MAX];
static int object_count;
static struct oom_control unused, *control = &unused;
static __thread bool is_inside; /* backtrace() and dlsym() may ask for memory themselves */

static void *(*next_malloc)(size_t);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static void *(*next_aligned)(size_t, size_t);
static void (*next_free)(void *);

/* What dlsym() asks for before we know whom to ask. Never given back. */
static _Alignas(16) unsigned char early[EARLY_BYTES];
static size_t early_used;

static void *early_take(size_t size)
{
    size_t at = __atomic_fetch_add(&early_used, (size + 15) / 16 * 16, __ATOMIC_RELAXED);

    return at + size <= sizeof early ? early + at : NULL;
}

static bool is_early(const void *p)
{
    return (const unsigned char *)p >= early && (const unsigned char *)p < early + sizeof early;
}

/* --- who asks --------------------------------------------------------------------------------- */

static enum kind kind_of_name(const char *name)
{
    static const struct {
        const char *part;
        enum kind kind;
    } rows[] = {{"libjansson", KIND_OURS}, {"libinih", KIND_OURS},       {"libutf8proc", KIND_OURS},
                {"libpng", KIND_OURS},     {"libsystemd", KIND_SYSTEMD}, {"/libc.so", KIND_LIBC},
                {"/oom.so", KIND_LIBC},    {"libasan", KIND_LIBC}};

    if (!name[0])
        return KIND_PROGRAM;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strstr(name, rows[i].part))
            return rows[i].kind;
    return KIND_OTHER;
}

static int add_object(struct dl_phdr_info *info, size_t size, void *userdata)
{
    (void)size, (void)userdata;
    for (int i = 0; i < info->dlpi_phnum && object_count < OBJECTS_MAX; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
            continue;
        objects[object_count++] = (struct object){.begin = info->dlpi_addr + p->p_vaddr,
                                                  .end = info->dlpi_addr + p->p_vaddr + p->p_memsz,
                                                  .base = info->dlpi_addr,
                                                  .kind = kind_of_name(info->dlpi_name)};
    }
    return 0;
}

static const struct object *object_of(const void *address)
{
    for (int i = 0; i < object_count; i++)
        if ((uintptr_t)address >= objects[i].begin && (uintptr_t)address < objects[i].end)
            return &objects[i];
    return NULL;
}

static enum oom_party party_of(void *const *frames, int count)
{
    for (int i = 0; i < count; i++) {
        const struct object *o = object_of(frames[i]);
        if (!o || o->kind == KIND_OTHER)
            return OOM_PARTY_OTHERS;
        if (o->kind == KIND_SYSTEMD)
            return OOM_PARTY_SYSTEMD;
        if (o->kind != KIND_LIBC)
            return OOM_PARTY_OURS;
    }
    return OOM_PARTY_OTHERS;
}

static void keep_frames(void *const *frames, int count, enum oom_party party)
{
    control->party = party;
    control->frame_count = (uint32_t)count;
    for (int i = 0; i < count; i++) {
        const struct object *o = object_of(frames[i]);
        control->frames[i] = o && o->kind == KIND_PROGRAM ? (uintptr_t)frames[i] - o->base : 0;
    }
}

/* Counts one; true when it is to fail. The whole list of callers only where the next one does not
 * tell: it costs more than all the rest. */
static bool is_refused_now(void *caller)
{
    void *frames[OOM_FRAMES] = {caller};
    const struct object *o = object_of(caller);
    int count = o && o->kind == KIND_LIBC ? backtrace(frames, OOM_FRAMES) : 1;
    enum oom_party party = party_of(frames, count);

    if (!(control->parties >> party & 1))
        return false;
    uint64_t n = __atomic_add_fetch(&control->count, 1, __ATOMIC_RELAXED);
    uint64_t fail_at = control->fail_at;
    if (fail_at == 0 || (control->sticky ? n < fail_at : n != fail_at))
        return false;
    if (__atomic_add_fetch(&control->failed, 1, __ATOMIC_RELAXED) == 1)
        keep_frames(frames, backtrace(frames, OOM_FRAMES), party);
    return true;
}

static bool is_refused(void *caller)
{
    if (!__atomic_load_n(&control->armed, __ATOMIC_ACQUIRE) || is_inside)
        return false;
    is_inside = true;
    bool refused = is_refused_now(caller);
    is_inside = false;
    if (refused)
        errno = ENOMEM;
    return refused;
}

static void *counted(void *block)
{
    if (block)
        (void)__atomic_add_fetch(&control->live, 1, __ATOMIC_RELAXED);
    return block;
}

/* --- the allocator ---------------------------------------------------------------------------- */

static void find_next(void)
{
    next_malloc = (void *(*)(size_t))(uintptr_t)dlsym(RTLD_NEXT, "malloc");
    next_realloc = (void *(*)(void *, size_t))(uintptr_t)dlsym(RTLD_NEXT, "realloc");
    next_aligned = (void *(*)(size_t, size_t))(uintptr_t)dlsym(RTLD_NEXT, "aligned_alloc");
    next_free = (void (*)(void *))(uintptr_t)dlsym(RTLD_NEXT, "free");
    next_calloc = (void *(*)(size_t, size_t))(uintptr_t)dlsym(RTLD_NEXT, "calloc");
}

static void *allocate(size_t size, void *caller)
{
    if (!next_malloc)
        return early_take(size);
    return is_refused(caller) ? NULL : counted(next_malloc(size));
}

void *malloc(size_t size)
{
    return allocate(size, __builtin_return_address(0));
}

void *calloc(size_t n, size_t size)
{
    if (!next_calloc)
        return early_take(n * size);
    return is_refused(__builtin_return_address(0)) ? NULL : counted(next_calloc(n, size));
}

static void *move_early(const void *from, size_t size)
{
    void *to = next_malloc ? counted(next_malloc(size)) : early_take(size);
    size_t left = (size_t)(early + sizeof early - (const unsigned char *)from);

    if (to)
        memcpy(to, from, size < left ? size : left);
    return to;
}

static void *resize(void *block, size_t size, void *caller)
{
    if (is_early(block) || !next_realloc)
        return block ? move_early(block, size) : early_take(size);
    if (size > 0 && is_refused(caller))
        return NULL;
    if (!block)
        return counted(next_realloc(NULL, size));
    void *moved = next_realloc(block, size);
    if (!moved && size == 0)
        (void)__atomic_sub_fetch(&control->live, 1, __ATOMIC_RELAXED);
    return moved;
}

void *realloc(void *block, size_t size)
{
    return resize(block, size, __builtin_return_address(0));
}

void *reallocarray(void *block, size_t n, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return resize(block, bytes, __builtin_return_address(0));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return is_refused(__builtin_return_address(0)) ? NULL : counted(next_aligned(alignment, size));
}

void *memalign(size_t alignment, size_t size)
{
    return aligned_alloc(alignment, size);
}

int posix_memalign(void **ret_block, size_t alignment, size_t size)
{
    void *block = aligned_alloc(alignment, size);

    if (!block)
        return ENOMEM;
    *ret_block = block;
    return 0;
}

void free(void *block)
{
    if (!block || is_early(block))
        return;
    (void)__atomic_sub_fetch(&control->live, 1, __ATOMIC_RELAXED);
    next_free(block);
}

/* A sanitizer's own would not come by here. */
static char *copy_text(const char *text, size_t length, void *caller)
{
    char *copy = allocate(length + 1, caller);

    if (copy) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

char *strndup(const char *text, size_t n)
{
    return copy_text(text, strnlen(text, n), __builtin_return_address(0));
}

char *strdup(const char *text)
{
    return copy_text(text, strlen(text), __builtin_return_address(0));
}

/* --- start ------------------------------------------------------------------------------------ */

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv(OOM_ENVIRONMENT), *program = getenv(OOM_PROGRAM);
    void *frames[2];

    find_next();
    is_inside = true;
    (void)backtrace(frames, 2); /* loads what it needs */
    is_inside = false;
    (void)dl_iterate_phdr(add_object, NULL);
    if (program && strcmp(program, program_invocation_short_name) != 0)
        return;
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *page = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (page == MAP_FAILED)
        return;
    control = page;
    control->is_loaded = 1;
}
