/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reader for the dynamic section of ELF files (System V gABI, chapters 4 and 5).
 *
 * Theory of operation: the file is mapped; every offset it holds is checked against the mapping
 * before it is followed, and every string against the end of its table, so a damaged library is an
 * error and nothing worse. Addresses in the dynamic section are turned into file offsets through
 * the loadable segments.
 */
#include "agent/vmm/elf_needs.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"

struct image {
    const char *path;
    const uint8_t *p;
    size_t n;
};

static int bad_elf(const struct image *im, const char *what, struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED, "%s: %s", im->path, what);
}

struct segments {
    const Elf64_Phdr *ph;
    size_t n;
};

/* The string table that the dynamic section names: file offsets. */
struct strings {
    uint64_t start;
    uint64_t end;
};

/* NULL when the `n` bytes at `offset` are not all in the file, or not aligned for numbers. */
static const void *image_at(const struct image *im, uint64_t offset, uint64_t n)
{
    if (offset > im->n || n > im->n - offset || offset % 8 != 0)
        return NULL;
    return im->p + offset;
}

static int image_open(const char *path, struct image *ret, struct err *e)
{
    struct stat st;
    void *p;
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, errno, "open %s", path);
    if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(Elf64_Ehdr))
        return err_set(e, ERR_UNSUPPORTED, "%s: not an ELF file", path);
    p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return err_sys(e, errno, "map %s", path);
    *ret = (struct image){.path = path, .p = p, .n = (size_t)st.st_size};
    return 0;
}

static void image_close(const struct image *im)
{
    if (im->p)
        (void)munmap((void *)(uintptr_t)im->p, im->n);
}

static bool read_segments(const struct image *im, struct segments *ret)
{
    const Elf64_Ehdr *h = (const void *)im->p;
    if (memcmp(h->e_ident, ELFMAG, SELFMAG) != 0 || h->e_ident[EI_CLASS] != ELFCLASS64 ||
        h->e_ident[EI_DATA] != ELFDATA2LSB || h->e_machine != EM_X86_64 ||
        h->e_phentsize != sizeof(Elf64_Phdr))
        return false;
    ret->n = h->e_phnum;
    ret->ph = image_at(im, h->e_phoff, (uint64_t)h->e_phnum * sizeof(Elf64_Phdr));
    return ret->ph != NULL;
}

/* The string at `offset`, copied; NULL when it does not end before `limit` or the file does. */
static const char *copy_string(
    const struct image *im, uint64_t offset, uint64_t limit, struct arena *a)
{
    const char *s;
    if (limit > im->n || offset >= limit)
        return NULL;
    s = (const char *)im->p + offset;
    if (!memchr(s, '\0', limit - offset))
        return NULL;
    return arena_strndup(a, s, strlen(s));
}

/* File offset of a virtual address; UINT64_MAX when no segment holds it. */
static uint64_t offset_of(const struct segments *sg, uint64_t vaddr)
{
    for (size_t i = 0; i < sg->n; i++) {
        const Elf64_Phdr *ph = &sg->ph[i];
        if (ph->p_type == PT_LOAD && vaddr >= ph->p_vaddr && vaddr - ph->p_vaddr < ph->p_filesz)
            return vaddr - ph->p_vaddr + ph->p_offset;
    }
    return UINT64_MAX;
}

static const Elf64_Phdr *find_segment(const struct segments *sg, uint32_t type)
{
    for (size_t i = 0; i < sg->n; i++)
        if (sg->ph[i].p_type == type)
            return &sg->ph[i];
    return NULL;
}

static bool find_strings(
    const Elf64_Dyn *dyn, size_t n, const struct segments *sg, struct strings *ret)
{
    uint64_t start = UINT64_MAX;
    uint64_t size = 0;
    for (size_t i = 0; i < n && dyn[i].d_tag != DT_NULL; i++) {
        if (dyn[i].d_tag == DT_STRTAB)
            start = offset_of(sg, dyn[i].d_un.d_ptr);
        else if (dyn[i].d_tag == DT_STRSZ)
            size = dyn[i].d_un.d_val;
    }
    if (start == UINT64_MAX || size > UINT64_MAX - start)
        return false;
    *ret = (struct strings){start, start + size};
    return true;
}

/* The string that entry `d` names; NULL when it lies outside the table. */
static const char *entry_string(
    const struct image *im, const Elf64_Dyn *d, const struct strings *st, struct arena *a)
{
    if (d->d_un.d_val >= st->end - st->start)
        return NULL;
    return copy_string(im, st->start + d->d_un.d_val, st->end, a);
}

/* Files the string `s` of an entry with that tag. False when there are too many. */
static bool add_entry(struct elf_needs *ret, int64_t tag, const char *s)
{
    if (tag != DT_NEEDED) {
        ret->runpath = s;
        return true;
    }
    if (ret->n_needed == ELF_NEEDED_MAX)
        return false;
    ret->needed[ret->n_needed++] = s;
    return true;
}

static bool is_wanted(int64_t tag)
{
    return tag == DT_NEEDED || tag == DT_RUNPATH || tag == DT_RPATH;
}

static int read_dynamic(const struct image *im, const struct segments *sg, struct arena *a,
    struct elf_needs *ret, struct err *e)
{
    const Elf64_Phdr *section = find_segment(sg, PT_DYNAMIC);
    const Elf64_Dyn *dyn;
    struct strings st;
    size_t n;
    if (!section)
        return 0;
    n = section->p_filesz / sizeof *dyn;
    dyn = image_at(im, section->p_offset, section->p_filesz);
    if (!dyn || !find_strings(dyn, n, sg, &st))
        return bad_elf(im, "its dynamic section is damaged", e);
    for (size_t i = 0; i < n && dyn[i].d_tag != DT_NULL; i++) {
        const char *s;
        if (!is_wanted(dyn[i].d_tag))
            continue;
        s = entry_string(im, &dyn[i], &st, a);
        if (!s || !add_entry(ret, dyn[i].d_tag, s))
            return bad_elf(im, s ? "needs too many shared objects" : "a name lies outside", e);
    }
    return 0;
}

static int read_interp(const struct image *im, const struct segments *sg, struct arena *a,
    struct elf_needs *ret, struct err *e)
{
    const Elf64_Phdr *interp = find_segment(sg, PT_INTERP);
    if (!interp)
        return 0;
    if (interp->p_filesz > im->n || interp->p_offset > im->n - interp->p_filesz)
        return bad_elf(im, "its loader's name lies outside the file", e);
    ret->interp = copy_string(im, interp->p_offset, interp->p_offset + interp->p_filesz, a);
    return ret->interp ? 0 : bad_elf(im, "its loader's name does not end", e);
}

int elf_read_needs(const char *path, struct arena *a, struct elf_needs *ret, struct err *e)
{
    CLEANUP(image_close) struct image im = {0};
    struct elf_needs needs = {0};
    struct segments sg;
    if (image_open(path, &im, e) < 0)
        return -1;
    if (!read_segments(&im, &sg))
        return bad_elf(&im, "not a 64-bit x86 ELF file", e);
    if (read_interp(&im, &sg, a, &needs, e) < 0 || read_dynamic(&im, &sg, a, &needs, e) < 0)
        return -1;
    *ret = needs;
    return 0;
}
