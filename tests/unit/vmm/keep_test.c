/* SPDX-License-Identifier: Apache-2.0 */
/* The VMM's files kept by digest: on small files of our own, and once on the real VMM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "agent/vmm/files.h"
#include "agent/vmm/keep.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/proc.h"

static int n_hashed; /* pieces of files */
static int n_spawned;

int __real_EVP_DigestUpdate(EVP_MD_CTX *md, const void *p, size_t n);
int __wrap_EVP_DigestUpdate(EVP_MD_CTX *md, const void *p, size_t n);
int __wrap_EVP_DigestUpdate(EVP_MD_CTX *md, const void *p, size_t n)
{
    n_hashed++;
    return __real_EVP_DigestUpdate(md, p, n);
}

int __real_proc_spawn(const struct proc_spawn *s, pid_t *ret_pid, struct err *e);
int __wrap_proc_spawn(const struct proc_spawn *s, pid_t *ret_pid, struct err *e);
int __wrap_proc_spawn(const struct proc_spawn *s, pid_t *ret_pid, struct err *e)
{
    n_spawned++;
    return __real_proc_spawn(s, ret_pid, e);
}

enum { PROGRAM, OBJECT, ROM, N_FILES };
static const char *const names[N_FILES] = {"vmm", "libone.so", "test.rom"};

struct fixture {
    char dir[64];
    int dirfd;
    char keep_dir[96];
    char sources[N_FILES][96];
    struct vmm_files *found;
    struct vmm_facts facts; /* of the last keep */
};

#define PROGRAM_TEXT "#!/bin/sh\necho 'TEST emulator version 1.2.3 (made here)'\n"

static void put(const struct fixture *f, const char *path, const char *text)
{
    AUTO_CLOSE int fd = openat(f->dirfd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRWXU);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static struct vmm_files *list(const struct fixture *f)
{
    struct err e = {0};
    struct vmm_files *files = vmm_files_new_empty(&e);
    assert_non_null(files);
    for (int i = 0; i < N_FILES; i++) {
        const struct vmm_file file = {
            .source = f->sources[i], .target = f->sources[i], .exec = i != ROM};
        assert_int_equal(vmm_files_add(files, &file, &e), 0);
    }
    files->program = files->items[PROGRAM].target;
    files->bios = files->items[ROM].target;
    return files;
}

static int set_up(void **state)
{
    static struct fixture f;
    f = (struct fixture){.dirfd = -1};
    (void)snprintf(f.dir, sizeof f.dir, "/tmp/torpor-keep-XXXXXX");
    if (!mkdtemp(f.dir))
        return -1;
    f.dirfd = open(f.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)snprintf(f.keep_dir, sizeof f.keep_dir, "%s/data/vmm", f.dir);
    for (int i = 0; i < N_FILES; i++)
        (void)snprintf(f.sources[i], sizeof f.sources[i], "%s/%s", f.dir, names[i]);
    put(&f, names[PROGRAM], PROGRAM_TEXT);
    put(&f, names[OBJECT], "one");
    put(&f, names[ROM], "rom");
    f.found = list(&f);
    n_hashed = n_spawned = 0;
    *state = &f;
    return f.dirfd < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    (void)vmm_files_free(f->found);
    (void)close(f->dirfd);
    return io_remove_tree(AT_FDCWD, f->dir, &e);
}

/* Keeps what was found; must succeed. */
static struct vmm_files *keep(struct fixture *f)
{
    struct err e = {0};
    struct vmm_files *kept = NULL;
    if (vmm_files_keep(f->keep_dir, f->found, &kept, &f->facts, &e) < 0)
        fail_msg("%s", e.msg);
    return kept;
}

static void keep_only(struct fixture *f)
{
    (void)vmm_files_free(keep(f));
}

/* The folders below keep_dir, also those aside. */
static int count_folders(const struct fixture *f)
{
    DIR *d = opendir(f->keep_dir);
    const struct dirent *ent;
    int n = 0;
    assert_non_null(d);
    while ((ent = readdir(d)))
        n += strcmp(ent->d_name, ".") != 0 && strcmp(ent->d_name, "..") != 0;
    (void)closedir(d);
    return n;
}

static void assert_contents(const char *path, const char *text)
{
    AUTO_BUF struct buf b = BUF_INIT(4096);
    struct err e = {0};
    if (io_read_file(AT_FDCWD, path, &b, &e) < 0)
        fail_msg("%s", e.msg);
    assert_true(slice_is(buf_slice(&b), text));
}

static mode_t mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
    return st.st_mode;
}

/* A path inside the set of the last keep. */
static const char *in_set(const struct fixture *f, const char *name)
{
    static char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%s/%s", f->keep_dir, f->facts.digest, name);
    return path;
}

static void test_complete(void **state)
{
    struct fixture *f = *state;
    struct vmm_files *kept = keep(f);
    assert_int_equal(strlen(f->facts.digest), 64);
    assert_string_equal(f->facts.version, "1.2.3");
    assert_int_equal(kept->n, N_FILES);
    for (int i = 0; i < N_FILES; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "%04d", i);
        assert_string_equal(kept->items[i].source, in_set(f, name));
        assert_string_equal(kept->items[i].target, f->sources[i]);
        assert_int_equal(kept->items[i].exec, i != ROM);
        assert_int_equal(mode_of(kept->items[i].source), S_IFREG | (i == ROM ? 0444 : 0555));
    }
    assert_contents(kept->items[PROGRAM].source, PROGRAM_TEXT);
    assert_contents(kept->items[OBJECT].source, "one");
    assert_contents(kept->items[ROM].source, "rom");
    assert_string_equal(kept->program, f->sources[PROGRAM]);
    assert_string_equal(kept->bios, f->sources[ROM]);
    assert_int_equal(mode_of(in_set(f, ".")), S_IFDIR | 0755);
    assert_int_equal(count_folders(f), 1);
    (void)vmm_files_free(kept);
}

/* What the digest is of, written down: it must not change, snapshots name it. */
static void test_digest(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct vmm_files *kept = NULL;
    struct vmm_files *found = vmm_files_new_empty(&e);
    /* In the order of their targets; the digest sorts them. */
    const struct vmm_file rom = {.source = f->sources[ROM], .target = "/b.rom"};
    const struct vmm_file vmm = {.source = f->sources[PROGRAM], .target = "/a", .exec = true};
    assert_int_equal(vmm_files_add(found, &rom, &e), 0);
    assert_int_equal(vmm_files_add(found, &vmm, &e), 0);
    found->program = "/a";
    found->bios = "/b.rom";
    assert_int_equal(vmm_files_keep(f->keep_dir, found, &kept, &f->facts, &e), 0);
    assert_string_equal(
        f->facts.digest, "2024119406f39584a6dc22123d95a10cf737393dd2d8293dbcfb0b9128c7630c");
    (void)vmm_files_free(kept);
    (void)vmm_files_free(found);
}

static void test_second_start_reads_nothing(void **state)
{
    struct fixture *f = *state;
    struct vmm_facts first;
    keep_only(f);
    assert_int_equal(n_hashed, N_FILES);
    assert_int_equal(n_spawned, 1);
    first = f->facts;
    f->facts = (struct vmm_facts){0};
    keep_only(f);
    assert_int_equal(n_hashed, N_FILES);
    assert_int_equal(n_spawned, 1);
    assert_string_equal(f->facts.digest, first.digest);
    assert_string_equal(f->facts.version, "1.2.3");
}

/* The same contents, installed anew: read once, and then known. */
static void test_reinstalled(void **state)
{
    struct fixture *f = *state;
    struct vmm_facts first;
    keep_only(f);
    first = f->facts;
    put(f, "aside", "one");
    assert_int_equal(renameat(f->dirfd, "aside", f->dirfd, names[OBJECT]), 0);
    keep_only(f);
    assert_string_equal(f->facts.digest, first.digest);
    assert_int_equal(n_hashed, 2 * N_FILES);
    assert_int_equal(count_folders(f), 1);
    keep_only(f);
    assert_int_equal(n_hashed, 2 * N_FILES);
}

static void test_changed(void **state)
{
    struct fixture *f = *state;
    struct vmm_facts first;
    struct err e = {0};
    struct vmm_files *old;
    keep_only(f);
    first = f->facts;
    put(f, names[OBJECT], "two!");
    keep_only(f);
    assert_string_not_equal(f->facts.digest, first.digest);
    assert_int_equal(count_folders(f), 2);
    old = vmm_files_open_kept(f->keep_dir, first.digest, &e);
    assert_non_null(old);
    assert_contents(old->items[OBJECT].source, "one");
    (void)vmm_files_free(old);
}

/* Another mode, or another place in the jail, is another set. */
static void test_mode_counts(void **state)
{
    struct fixture *f = *state;
    struct vmm_facts first;
    keep_only(f);
    first = f->facts;
    f->found->items[OBJECT].exec = false;
    keep_only(f);
    assert_string_not_equal(f->facts.digest, first.digest);
}

static void test_sources_gone(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct vmm_files *kept;
    struct vmm_files *none = NULL;
    keep_only(f);
    for (int i = 0; i < N_FILES; i++)
        assert_int_equal(unlink(f->sources[i]), 0);
    kept = vmm_files_open_kept(f->keep_dir, f->facts.digest, &e);
    assert_non_null(kept);
    assert_contents(kept->items[OBJECT].source, "one");
    assert_int_equal(kept->n, N_FILES);
    (void)vmm_files_free(kept);
    assert_int_equal(vmm_files_keep(f->keep_dir, f->found, &none, &f->facts, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_null(none);
    assert_int_equal(count_folders(f), 1);
}

static void refuse_open(
    const struct fixture *f, const char *digest, enum err_kind kind, const char *why)
{
    struct err e = {0};
    assert_null(vmm_files_open_kept(f->keep_dir, digest, &e));
    assert_int_equal(e.kind, kind);
    if (!strstr(e.msg, why))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, why);
}

static void test_damaged(void **state)
{
    struct fixture *f = *state;
    keep_only(f);
    assert_int_equal(truncate(in_set(f, "0001"), 2), 0);
    refuse_open(f, f->facts.digest, ERR_UNSUPPORTED, "has another size");
    assert_int_equal(unlink(in_set(f, "0001")), 0);
    refuse_open(f, f->facts.digest, ERR_UNSUPPORTED, "is missing");
    /* Not a file of the set, though it has the size. */
    assert_int_equal(symlink(f->sources[OBJECT], in_set(f, "0001")), 0);
    refuse_open(f, f->facts.digest, ERR_UNSUPPORTED, "has another size");
    /* The next start makes it whole. */
    keep_only(f);
    assert_int_equal(count_folders(f), 1);
    assert_contents(in_set(f, "0001"), "one");
    assert_int_equal(mode_of(in_set(f, "0001")), S_IFREG | 0555);
}

/* Replaces one text in the manifest by another of the same length. */
static void edit_manifest(const struct fixture *f, const char *from, const char *to)
{
    AUTO_BUF struct buf b = BUF_INIT(65536);
    AUTO_CLOSE int fd = -1;
    struct err e = {0};
    char *at;
    assert_int_equal(io_read_file(AT_FDCWD, in_set(f, "manifest.json"), &b, &e), 0);
    at = strstr(b.p, from);
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
    fd = open(in_set(f, "manifest.json"), O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_int_equal(write(fd, b.p, b.len), b.len);
}

static void test_damaged_manifest(void **state)
{
    struct fixture *f = *state;
    static const char *const edits[][2] = {
        {"\"format\":1", "\"format\":2"},
        {"\"name\":\"0001\"", "\"name\":\"0002\""},
        {"\"name\":\"0001\"", "\"name\":\"../1\""},
        {"\"exec\":false", "\"exec\":true "},
        {"\"target\":\"/", "\"target\":\"."},
        {"libone.so", "libtwo.so"},
        {"\"bios\":\"/", "\"bios\":\"x"},
        {"\"size\":", "\"sixe\":"},
        {"\"source\":", "\"sourse\":"},
    };
    for (size_t i = 0; i < ARRAY_LEN(edits); i++) {
        keep_only(f);
        edit_manifest(f, edits[i][0], edits[i][1]);
        refuse_open(f, f->facts.digest, ERR_UNSUPPORTED, "manifest.json");
    }
    keep_only(f);
    edit_manifest(f, "{", "[");
    refuse_open(f, f->facts.digest, ERR_UNSUPPORTED, "is damaged here");
    assert_int_equal(unlink(in_set(f, "manifest.json")), 0);
    refuse_open(f, f->facts.digest, ERR_UNSUPPORTED, "is damaged here");
    keep_only(f);
    assert_int_equal(count_folders(f), 1);
}

#define NO_DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_not_kept(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    refuse_open(f, NO_DIGEST, ERR_UNSUPPORTED,
        "the VMM that saved it (digest " NO_DIGEST ") is not kept here");
    keep_only(f);
    refuse_open(f, NO_DIGEST, ERR_UNSUPPORTED, "is not kept here");
    refuse_open(f, "", ERR_INVALID, "digest");
    refuse_open(f, NO_DIGEST "0", ERR_INVALID, "digest");
    refuse_open(f, "../" NO_DIGEST, ERR_INVALID, "digest");
    refuse_open(f, "0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef", ERR_INVALID,
        "digest");
    assert_null(vmm_files_open_kept(NULL, NO_DIGEST, &e));
    assert_int_equal(e.kind, ERR_UNSUPPORTED);
    assert_null(vmm_files_open_kept("", NO_DIGEST, &e));
    assert_int_equal(e.kind, ERR_UNSUPPORTED);
}

static void refuse_keep(struct fixture *f, enum err_kind kind, const char *why)
{
    struct err e = {0};
    struct vmm_files *kept = NULL;
    assert_int_equal(vmm_files_keep(f->keep_dir, f->found, &kept, &f->facts, &e), -1);
    assert_int_equal(e.kind, kind);
    if (!strstr(e.msg, why))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, why);
    assert_null(kept);
    assert_string_equal(f->facts.digest, "");
    assert_int_equal(count_folders(f), 0);
}

static void test_keep_failures(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct vmm_files *kept = NULL;
    put(f, names[PROGRAM], "#!/bin/sh\necho hello\n");
    refuse_keep(f, ERR_UNSUPPORTED, "does not say its version");
    put(f, names[PROGRAM], "#!/bin/sh\n");
    refuse_keep(f, ERR_UNSUPPORTED, "does not say its version");
    put(f, names[PROGRAM], "no program");
    refuse_keep(f, err_kind_from_errno(ENOEXEC), "start");
    put(f, names[PROGRAM], PROGRAM_TEXT);
    assert_int_equal(unlink(f->sources[OBJECT]), 0);
    refuse_keep(f, ERR_NOT_FOUND, "libone.so");
    assert_int_equal(mkdir(f->sources[OBJECT], 0700), 0);
    refuse_keep(f, ERR_INVALID, "not a regular file");
    assert_int_equal(vmm_files_keep("relative", f->found, &kept, &f->facts, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_null(kept);
}

/* A folder aside that its maker has locked stays; one that a crash left goes. */
static void test_sweep(void **state)
{
    struct fixture *f = *state;
    AUTO_CLOSE int lock = -1;
    keep_only(f);
    put(f, "data/vmm/other", "not ours");
    assert_int_equal(mkdirat(f->dirfd, "data/vmm/.new-left", 0755), 0);
    put(f, "data/vmm/.new-left/0000", "half");
    assert_int_equal(mkdirat(f->dirfd, "data/vmm/.old-left", 0755), 0);
    assert_int_equal(mkdirat(f->dirfd, "data/vmm/.new-busy", 0755), 0);
    lock = openat(f->dirfd, "data/vmm/.new-busy", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(lock, LOCK_EX | LOCK_NB), 0);
    keep_only(f);
    assert_int_equal(faccessat(f->dirfd, "data/vmm/.new-left", F_OK, 0), -1);
    assert_int_equal(faccessat(f->dirfd, "data/vmm/.old-left", F_OK, 0), -1);
    assert_int_equal(faccessat(f->dirfd, "data/vmm/.new-busy", F_OK, 0), 0);
    assert_int_equal(faccessat(f->dirfd, "data/vmm/other", F_OK, 0), 0);
    assert_int_equal(count_folders(f), 3);
}

/* Several processes at once, from nothing and then over a damaged set. */
static void keep_at_once(struct fixture *f)
{
    enum { N = 4 };
    pid_t pids[N];
    int go[2];
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    for (int i = 0; i < N; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            char c;
            struct err e = {0};
            struct vmm_files *kept = NULL;
            (void)close(go[1]);
            (void)!read(go[0], &c, 1); /* its end */
            if (vmm_files_keep(f->keep_dir, f->found, &kept, &f->facts, &e) < 0)
                (void)fprintf(stderr, "%s\n", e.msg);
            _exit(kept && kept->n == N_FILES ? 0 : 1);
        }
    }
    (void)close(go[0]);
    (void)close(go[1]);
    for (int i = 0; i < N; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(count_folders(f), 1);
    n_hashed = 0;
    keep_only(f);
    assert_int_equal(n_hashed, 0);
}

static void test_at_once(void **state)
{
    struct fixture *f = *state;
    keep_at_once(f);
    assert_int_equal(unlink(in_set(f, "0002")), 0);
    keep_at_once(f);
    assert_contents(in_set(f, "0002"), "rom");
}

/* The library has its own place in the jail, and brings what it needs. This test's own program
 * stands in for it. */
static void test_library(void **state)
{
    const struct fixture *f = *state;
    const char *const firmware[] = {f->dir, NULL};
    struct vmm_file_dirs dirs = vmm_file_dirs_default(/* use_kvm= */ true);
    const struct vmm_file *library;
    struct vmm_files *files;
    bool has_cmocka = false;
    struct err e = {0};
    dirs.firmware = firmware;
    dirs.bios_name = names[ROM];
    dirs.library = "/proc/self/exe";
    files = vmm_files_new("/bin/sh", &dirs, &e);
    if (!files)
        fail_msg("%s", e.msg);
    library = vmm_files_find(files, SHIM_LIBRARY);
    assert_non_null(library);
    assert_string_equal(library->source, "/proc/self/exe");
    assert_true(library->exec);
    for (size_t i = 0; i < files->n; i++)
        has_cmocka |= strstr(files->items[i].target, "/libcmocka.so") != NULL;
    assert_true(has_cmocka);
    (void)vmm_files_free(files);
    dirs.library = "/no/such/library.so";
    assert_null(vmm_files_new("/bin/sh", &dirs, &e));
    assert_int_equal(e.kind, ERR_NOT_FOUND);
}

/* --- vmm_can_restore --- */

static struct vmm_host host_of(struct fixture *f)
{
    struct vmm_host h = {.keep_dir = f->keep_dir, .tsc_khz = 2000000};
    keep_only(f);
    h.facts = f->facts;
    (void)snprintf(h.facts.driver, sizeof h.facts.driver, "qemu");
    (void)snprintf(h.facts.accel, sizeof h.facts.accel, "tcg");
    h.facts.tsc_khz = h.tsc_khz;
    h.facts.snapshot_format = VMM_SNAPSHOT_FORMAT;
    return h;
}

static void refuse(const struct vmm_host *h, const struct vmm_facts *saved, const char *why)
{
    struct err e = {0};
    assert_int_equal(vmm_can_restore(h, saved, &e), -1);
    assert_int_equal(e.kind, ERR_UNSUPPORTED);
    if (!strstr(e.msg, why))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, why);
}

static void test_can_restore(void **state)
{
    struct vmm_host h = host_of(*state);
    struct vmm_facts saved = h.facts;
    struct err e = {0};
    assert_int_equal(vmm_can_restore(&h, &saved, &e), 0);
    h.use_kvm = true; /* this host could do better, but can do TCG */
    assert_int_equal(vmm_can_restore(&h, &saved, &e), 0);
    (void)snprintf(saved.driver, sizeof saved.driver, "other");
    refuse(&h, &saved, "saved by the VMM \"other\", this host has \"qemu\"");
    saved = h.facts;
    saved.snapshot_format = VMM_SNAPSHOT_FORMAT_COPIED;
    assert_int_equal(vmm_can_restore(&h, &saved, &e), 0);
    saved.snapshot_format = 3;
    refuse(&h, &saved, "its snapshot format is 3");
    saved = h.facts;
    (void)snprintf(saved.accel, sizeof saved.accel, "hvf");
    refuse(&h, &saved, "\"hvf\"");
    saved = h.facts;
    (void)snprintf(saved.digest, sizeof saved.digest, NO_DIGEST);
    refuse(&h, &saved, "is not kept here");
    saved.digest[0] = '\0';
    refuse(&h, &saved, "digest");
    saved = h.facts;
    h.keep_dir = NULL;
    refuse(&h, &saved, "is not kept here");
}

static void test_can_restore_tsc(void **state)
{
    struct vmm_host h = host_of(*state);
    struct vmm_facts saved = h.facts;
    struct err e = {0};
    saved.tsc_khz = 1999501; /* 2000000 is 249.6 ppm above */
    assert_int_equal(vmm_can_restore(&h, &saved, &e), 0);
    saved.tsc_khz = 2000500;
    assert_int_equal(vmm_can_restore(&h, &saved, &e), 0);
    saved.tsc_khz = 2000501;
    refuse(&h, &saved, "2000501 kHz");
    saved.tsc_khz = 1999499;
    refuse(&h, &saved, "250 ppm");
    saved.tsc_khz = 0;
    refuse(&h, &saved, "0 kHz");
}

static void test_can_restore_kvm(void **state)
{
    struct vmm_host h = host_of(*state);
    struct vmm_facts saved = h.facts;
    struct err e = {0};
    (void)snprintf(saved.accel, sizeof saved.accel, "kvm");
    (void)snprintf(saved.cpu_flags, sizeof saved.cpu_flags, "fpu sse sse2 avx");
    saved.tsc_khz = 1; /* of no matter */
    refuse(&h, &saved, "saved under KVM");
    h.use_kvm = true;
    refuse(&h, &saved, "lacks the feature fpu ");
    (void)snprintf(h.facts.cpu_flags, sizeof h.facts.cpu_flags, "fpu sse2 sse4 avx2 sse");
    refuse(&h, &saved, "lacks the feature avx ");
    (void)snprintf(h.facts.cpu_flags, sizeof h.facts.cpu_flags, "avx sse2 fpu more sse");
    assert_int_equal(vmm_can_restore(&h, &saved, &e), 0);
}

/* --- vmm_sets_collect --- */

static bool is_text(void *ctx, const char *digest)
{
    return strcmp(ctx, digest) == 0;
}

static void test_collect(void **state)
{
    struct fixture *f = *state;
    char digests[3][72];
    struct vmm_host h;
    struct err e = {0};
    for (int i = 0; i < 3; i++) {
        char text[2] = {(char)('a' + i), '\0'};
        put(f, names[ROM], text);
        h = host_of(f);
        memcpy(digests[i], h.facts.digest, sizeof digests[i]);
    }
    assert_int_equal(count_folders(f), 3);
    put(f, "data/vmm/other", "not ours");
    assert_int_equal(vmm_sets_collect(&h, is_text, digests[1], &e), 0);
    assert_int_equal(count_folders(f), 3);
    refuse_open(f, digests[0], ERR_UNSUPPORTED, "is not kept here");
    (void)vmm_files_free(vmm_files_open_kept(f->keep_dir, digests[1], &e));
    (void)vmm_files_free(vmm_files_open_kept(f->keep_dir, digests[2], &e));
    assert_int_equal(e.kind, ERR_NONE);
    h.keep_dir = "/no/such/folder";
    assert_int_equal(vmm_sets_collect(&h, is_text, digests[1], &e), 0);
    h.keep_dir = NULL;
    assert_int_equal(vmm_sets_collect(&h, is_text, digests[1], &e), 0);
}

/* --- The real VMM --- */

static void test_real(void **state)
{
    struct fixture *f = *state;
    struct vmm_host h = {.shim = "/s", .run_dir = "/r", .keep_dir = f->keep_dir};
    struct err e = {0};
    char digest[72];
    assert_int_equal(unsetenv("TORPOR_PAGEMAP"), 0);
    if (vmm_host_probe("tcg", &h, &e) < 0) {
        if (e.kind != ERR_UNSUPPORTED)
            fail_msg("%s", e.msg);
        print_message("skipped: %s\n", e.msg);
        skip();
    }
    assert_string_equal(h.shim, "/s");
    assert_string_equal(h.run_dir, "/r");
    assert_ptr_equal(h.keep_dir, f->keep_dir);
    assert_string_equal(h.files->program, h.qemu);
    for (size_t i = 0; i < h.files->n; i++)
        assert_int_equal(strncmp(h.files->items[i].source, f->keep_dir, strlen(f->keep_dir)), 0);
    assert_string_equal(h.facts.driver, "qemu");
    assert_string_equal(h.facts.accel, "tcg");
    assert_string_equal(h.facts.machine, "microvm");
    assert_string_equal(h.facts.cpu, "max");
    assert_string_equal(h.facts.cpu_flags, "");
    assert_int_equal(h.facts.tsc_khz, h.tsc_khz);
    assert_in_range(h.facts.version[0], '0', '9');
    assert_int_equal(vmm_can_restore(&h, &h.facts, &e), 0);
    assert_false(h.old_pagemap);
    assert_true(!h.has_uffd || access("/dev/userfaultfd", R_OK | W_OK) == 0);
    print_message("QEMU %s, %zu files, set %.12s\n", h.facts.version, h.files->n, h.facts.digest);
    memcpy(digest, h.facts.digest, sizeof digest);
    vmm_host_done(&h);
    n_hashed = n_spawned = 0;
    assert_int_equal(setenv("TORPOR_PAGEMAP", "old", /* overwrite= */ 1), 0);
    assert_int_equal(vmm_host_probe("tcg", &h, &e), 0);
    assert_int_equal(unsetenv("TORPOR_PAGEMAP"), 0);
    assert_true(h.old_pagemap);
    assert_string_equal(h.facts.digest, digest);
    assert_int_equal(n_hashed + n_spawned, 0);
    vmm_host_done(&h);
}

#define KEEP_TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KEEP_TEST(test_complete),
        KEEP_TEST(test_digest),
        KEEP_TEST(test_second_start_reads_nothing),
        KEEP_TEST(test_reinstalled),
        KEEP_TEST(test_changed),
        KEEP_TEST(test_mode_counts),
        KEEP_TEST(test_sources_gone),
        KEEP_TEST(test_damaged),
        KEEP_TEST(test_damaged_manifest),
        KEEP_TEST(test_not_kept),
        KEEP_TEST(test_keep_failures),
        KEEP_TEST(test_sweep),
        KEEP_TEST(test_at_once),
        KEEP_TEST(test_library),
        KEEP_TEST(test_can_restore),
        KEEP_TEST(test_can_restore_tsc),
        KEEP_TEST(test_can_restore_kvm),
        KEEP_TEST(test_collect),
        KEEP_TEST(test_real),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
