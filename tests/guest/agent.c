/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The whole user space of a test guest, run as /init.
 *
 * It mounts the kernel's file systems, loads the modules of /modules/list in
 * order and then serves commands from the serial port that the kernel's
 * command line names (agent=ttyS1).  A command is one line, "TAG VERB ARG...";
 * it runs in a process of its own, so commands may overlap.  Its answer is any
 * number of lines "TAG data KEY=VALUE...", then "TAG ok" or "TAG error TEXT".
 * With modules=held on the kernel's command line it loads modules when told to.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/kexec.h>
#include <linux/vfio.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static int port = -1;
static const char *tag = "-";

/* --- answers ------------------------------------------------------------- */

/* One write per line, so that lines of commands that overlap stay whole. */
static void answer(const char *format, ...)
{
    char line[2048];
    va_list args;
    int n = snprintf(line, sizeof line, "%s ", tag);

    va_start(args, format);
    n += vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
    va_end(args);
    if (n > (int)sizeof line - 2) {
        n = (int)sizeof line - 2;
    }
    line[n++] = '\n';
    for (int sent = 0; sent < n;) {
        ssize_t w = write(port, line + sent, (size_t)(n - sent));
        if (w <= 0) {
            return;
        }
        sent += (int)w;
    }
}

static _Noreturn void fail(const char *what)
{
    answer("error %s: %s", what, strerror(errno));
    _exit(1);
}

static _Noreturn void refuse(const char *what)
{
    answer("error %s", what);
    _exit(1);
}

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* --- SHA-256 (FIPS 180-4) -------------------------------------------------- */

typedef struct {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t block[64];
} Sha256;

static const uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t ror(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

/* The eight variables keep their places: each round names them one further on. */
#define SHA_ROUND(a, b, c, d, e, f, g, h, i)                                                       \
    do {                                                                                           \
        uint32_t t =                                                                               \
            h + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + (g ^ (e & (f ^ g))) + sha_k[i] + w[i];     \
        d += t;                                                                                    \
        h = t + (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & b) | (c & (a | b)));                 \
    } while (0)

static void sha_block(Sha256 *s, const uint8_t *p)
{
    uint32_t w[64], *v = s->h;
    uint32_t a = v[0], b = v[1], c = v[2], d = v[3], e = v[4], f = v[5], g = v[6], h = v[7];

    for (int i = 0; i < 16; i++) {
        uint32_t word;
        memcpy(&word, p + 4 * i, 4);
        w[i] = ntohl(word);
    }
    for (int i = 16; i < 64; i++) {
        uint32_t x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + (ror(x, 7) ^ ror(x, 18) ^ x >> 3) + w[i - 7] +
               (ror(y, 17) ^ ror(y, 19) ^ y >> 10);
    }
    for (int i = 0; i < 64; i += 8) {
        SHA_ROUND(a, b, c, d, e, f, g, h, i);
        SHA_ROUND(h, a, b, c, d, e, f, g, i + 1);
        SHA_ROUND(g, h, a, b, c, d, e, f, i + 2);
        SHA_ROUND(f, g, h, a, b, c, d, e, i + 3);
        SHA_ROUND(e, f, g, h, a, b, c, d, i + 4);
        SHA_ROUND(d, e, f, g, h, a, b, c, i + 5);
        SHA_ROUND(c, d, e, f, g, h, a, b, i + 6);
        SHA_ROUND(b, c, d, e, f, g, h, a, i + 7);
    }
    v[0] += a;
    v[1] += b;
    v[2] += c;
    v[3] += d;
    v[4] += e;
    v[5] += f;
    v[6] += g;
    v[7] += h;
}

static void sha_begin(Sha256 *s)
{
    static const uint32_t h0[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    };

    memcpy(s->h, h0, sizeof h0);
    s->bytes = 0;
}

static void sha_add(Sha256 *s, const void *data, size_t n)
{
    const uint8_t *p = data;
    size_t used = s->bytes % 64;

    s->bytes += n;
    if (used) {
        size_t part = n < 64 - used ? n : 64 - used;
        memcpy(s->block + used, p, part);
        p += part;
        n -= part;
        if (used + part < 64) {
            return;
        }
        sha_block(s, s->block);
    }
    for (; n >= 64; p += 64, n -= 64) {
        sha_block(s, p);
    }
    memcpy(s->block, p, n);
}

static const char *sha_end(Sha256 *s)
{
    static char text[65];
    uint64_t bits = s->bytes * 8;
    uint8_t length[8];

    sha_add(s, "\x80", 1);
    while (s->bytes % 64 != 56) {
        sha_add(s, "", 1);
    }
    for (int i = 0; i < 8; i++) {
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    }
    sha_add(s, length, 8);
    for (int i = 0; i < 8; i++) {
        snprintf(text + 8 * i, 9, "%08x", s->h[i]);
    }
    return text;
}

static void fill_random(void *to, size_t n)
{
    uint8_t *p = to;

    while (n) {
        ssize_t got = getrandom(p, n < 65536 ? n : 65536, GRND_INSECURE);
        if (got <= 0) {
            fail("getrandom");
        }
        p += got;
        n -= (size_t)got;
    }
}

/* --- sysfs ----------------------------------------------------------------- */

static bool read_text(const char *path, char *to, size_t room)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, to, room - 1);

    if (fd >= 0) {
        close(fd);
    }
    if (n < 0) {
        return false;
    }
    while (n > 0 && (to[n - 1] == '\n' || to[n - 1] == ' ')) {
        n--;
    }
    to[n] = 0;
    for (char *p = to; *p; p++) {
        if (*p == ' ' || *p == '\n' || *p == '\t') {
            *p = ',';
        }
    }
    return true;
}

/* The last part of what a symbolic link points to, or "none". */
static void link_name(char *to, size_t room, const char *format, ...)
{
    char path[PATH_MAX], target[PATH_MAX];
    va_list args;
    ssize_t n;

    va_start(args, format);
    vsnprintf(path, sizeof path, format, args);
    va_end(args);
    n = readlink(path, target, sizeof target - 1);
    if (n < 0) {
        snprintf(to, room, "none");
        return;
    }
    target[n] = 0;
    char *slash = strrchr(target, '/');
    snprintf(to, room, "%.200s", slash ? slash + 1 : target);
}

static void attribute(char *to, size_t room, const char *format, ...)
{
    char path[PATH_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(path, sizeof path, format, args);
    va_end(args);
    if (!read_text(path, to, room)) {
        snprintf(to, room, "none");
    }
}

enum { ACCESS_PLATFORM = 33 };

static bool is_entry(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

/*
 * The driver of a function's child on the virtio bus, and whether both sides
 * agreed on ACCESS_PLATFORM: without it, its data goes past every IOMMU.
 */
static void virtio_child(char *driver, size_t room, char *platform, const char *device)
{
    DIR *dir = opendir(device);
    struct dirent *e;

    snprintf(driver, room, "none");
    *platform = '0';
    while (dir && (e = readdir(dir))) {
        if (!strncmp(e->d_name, "virtio", 6)) {
            char features[128];

            link_name(driver, room, "%s/%s/driver", device, e->d_name);
            attribute(features, sizeof features, "%s/%s/features", device, e->d_name);
            *platform = strlen(features) > ACCESS_PLATFORM ? features[ACCESS_PLATFORM] : '0';
        }
    }
    if (dir) {
        closedir(dir);
    }
}

static void list_bus(const char *bus, bool only_grouped)
{
    char base[128];
    struct dirent *e;

    snprintf(base, sizeof base, "/sys/bus/%s/devices", bus);
    DIR *dir = opendir(base);
    while (dir && (e = readdir(dir))) {
        char device[512], real[PATH_MAX], driver[256], child[256], group[256], type[64] = "none";
        char iommu[256], vendor[32], id[32], class[32], platform;

        if (!is_entry(e)) {
            continue;
        }
        snprintf(device, sizeof device, "%s/%s", base, e->d_name);
        link_name(group, sizeof group, "%s/iommu_group", device);
        if (!realpath(device, real) || (only_grouped && !strcmp(group, "none"))) {
            continue;
        }
        if (strcmp(group, "none")) {
            attribute(type, sizeof type, "/sys/kernel/iommu_groups/%s/type", group);
        }
        link_name(driver, sizeof driver, "%s/driver", device);
        link_name(iommu, sizeof iommu, "%s/iommu", device);
        virtio_child(child, sizeof child, &platform, device);
        attribute(vendor, sizeof vendor, "%s/vendor", device);
        attribute(id, sizeof id, "%s/device", device);
        attribute(class, sizeof class, "%s/class", device);
        answer("data bus=%s name=%s path=%s vendor=%s device=%s class=%s driver=%s virtio=%s "
               "platform=%c group=%s type=%s iommu=%s",
               bus, e->d_name, real + strlen("/sys/devices/"), vendor, id, class, driver, child,
               platform, group, type, iommu);
    }
    if (dir) {
        closedir(dir);
    }
}

/* Every PCI function, and every platform device that has an IOMMU group. */
static void devices_command(void)
{
    list_bus("pci", false);
    list_bus("platform", true);
}

/*
 * The entry of /sys/class/CLASS that belongs to the device called `name`; a
 * driver may make it some time after it was bound.
 */
static void class_entry(char *to, size_t room, const char *class, const char *name)
{
    char base[64], needle[128];

    snprintf(base, sizeof base, "/sys/class/%s", class);
    snprintf(needle, sizeof needle, "/%s/", name);
    for (uint64_t start = now_ms(); now_ms() - start < 10000; usleep(20000)) {
        DIR *dir = opendir(base);
        struct dirent *e;

        while (dir && (e = readdir(dir))) {
            char path[512], real[PATH_MAX], part[600];

            snprintf(path, sizeof path, "%s/%s", base, e->d_name);
            snprintf(part, sizeof part, "%s/partition", path);
            if (is_entry(e) && realpath(path, real) && strstr(real, needle) && access(part, F_OK)) {
                snprintf(to, room, "%s", e->d_name);
                closedir(dir);
                return;
            }
        }
        if (dir) {
            closedir(dir);
        }
    }
    answer("error no %s device belongs to %s", class, name);
    _exit(1);
}

static void read_command(const char *path)
{
    char text[1024];

    if (!read_text(path, text, sizeof text)) {
        fail(path);
    }
    answer("data value=%s", text);
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);

    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
        fail(path);
    }
    close(fd);
}

/* --- disks ----------------------------------------------------------------- */

enum { CHUNK = 1 << 20, HUGE = 2 << 20, HASH_TEXT = 65 };

static int open_disk(const char *name, uint64_t *size)
{
    char entry[256], path[300];
    int subsystem, controller, namespace;

    class_entry(entry, sizeof entry, "block", name);
    snprintf(path, sizeof path, "/dev/%s", entry);
    /* A controller that shares its namespaces is one path to a disk, which is named without it. */
    if (sscanf(entry, "nvme%dc%dn%d", &subsystem, &controller, &namespace) == 3) {
        snprintf(path, sizeof path, "/dev/nvme%dn%d", subsystem, namespace);
    }
    int fd = open(path, O_RDWR | O_DIRECT);
    /* A plugged disk shows in /sys first, then has a node in /dev, then can be opened. */
    for (uint64_t start = now_ms();
         fd < 0 && (errno == ENOENT || errno == ENXIO) && now_ms() - start < 10000;) {
        usleep(20000);
        fd = open(path, O_RDWR | O_DIRECT);
    }
    if (fd < 0 || ioctl(fd, BLKGETSIZE64, size)) {
        fail(path);
    }
    return fd;
}

#define MOUNTED "/mounted"

/* The disk's file system, for reading only. */
static void mount_command(const char *name, const char *type)
{
    char entry[256], path[300];

    class_entry(entry, sizeof entry, "block", name);
    snprintf(path, sizeof path, "/dev/%s", entry);
    if ((mkdir(MOUNTED, 0755) && errno != EEXIST) || mount(path, MOUNTED, type, MS_RDONLY, NULL)) {
        fail(path);
    }
}

static void *dma_buffer(size_t n)
{
    void *p =
        mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (p == MAP_FAILED) {
        fail("mmap");
    }
    return p;
}

/* Reads the whole disk past the page cache: every byte arrives by DMA. */
static void disk_read_command(const char *name)
{
    uint64_t size, start = now_ms();
    int fd = open_disk(name, &size);
    uint8_t *buffer = dma_buffer(CHUNK);
    Sha256 sum;

    sha_begin(&sum);
    for (uint64_t at = 0; at < size;) {
        ssize_t n = pread(fd, buffer, CHUNK, (off_t)at);
        if (n <= 0) {
            fail("read");
        }
        sha_add(&sum, buffer, (size_t)n);
        at += (uint64_t)n;
    }
    answer("data bytes=%llu sha256=%s ms=%llu", (unsigned long long)size, sha_end(&sum),
           (unsigned long long)(now_ms() - start));
}

/* Overwrites the start of the disk with random bytes, which the device fetches by DMA. */
static void disk_write_command(const char *name, uint64_t bytes)
{
    uint64_t size;
    int fd = open_disk(name, &size);
    uint8_t *buffer = dma_buffer(CHUNK);
    Sha256 sum;

    if (bytes > size || bytes % CHUNK) {
        refuse("the size to write must be whole MiB and fit the disk");
    }
    sha_begin(&sum);
    for (uint64_t at = 0; at < bytes; at += CHUNK) {
        fill_random(buffer, CHUNK);
        if (pwrite(fd, buffer, CHUNK, (off_t)at) != CHUNK) {
            fail("write");
        }
        sha_add(&sum, buffer, CHUNK);
    }
    if (fsync(fd)) {
        fail("fsync");
    }
    answer("data bytes=%llu sha256=%s", (unsigned long long)bytes, sha_end(&sum));
}

static void read_piece(int fd, uint8_t *to, uint64_t at)
{
    if (pread(fd, to, CHUNK, (off_t)at) != CHUNK) {
        fail("read");
    }
}

static void piece_hash(char *to, const uint8_t *piece)
{
    Sha256 sum;

    sha_begin(&sum);
    sha_add(&sum, piece, CHUNK);
    memcpy(to, sha_end(&sum), HASH_TEXT);
}

/*
 * What was read differs from what the first pass read.  Whether that one is still
 * what it was, and what another buffer gets now, tells a wrong read from memory
 * that changed.
 */
static void describe_difference(int fd, uint64_t at, const uint8_t *read, const uint8_t *before,
                                const char *hash_before)
{
    uint8_t *other = dma_buffer(CHUNK);
    char kept[HASH_TEXT], again[HASH_TEXT];
    unsigned pages = 0;
    size_t first = CHUNK;

    for (size_t page = 0; page < CHUNK; page += 4096) {
        pages += memcmp(read + page, before + page, 4096) != 0;
    }
    for (size_t i = CHUNK; i-- > 0;) {
        first = read[i] == before[i] ? first : i;
    }
    piece_hash(kept, before);
    read_piece(fd, other, at);
    piece_hash(again, other);
    answer("data differs=%#llx pages=%u first=%#zx read=%02x wanted=%02x first_pass=%s "
           "other_buffer=%s",
           (unsigned long long)at, pages, first, first < CHUNK ? read[first] : 0,
           first < CHUNK ? before[first] : 0, strcmp(kept, hash_before) ? "changed" : "kept",
           strcmp(again, hash_before) ? "wrong" : "right");
    munmap(other, CHUNK);
}

/*
 * Reads the disk past the page cache for ever and tells of each pass.  The hash of
 * a pass is that of its pieces' hashes.
 */
static _Noreturn void disk_loop_command(const char *name)
{
    uint64_t size;
    int fd = open_disk(name, &size);
    uint64_t pieces = size / CHUNK;
    uint8_t *buffer = dma_buffer(CHUNK), *before = dma_buffer(pieces * CHUNK);
    char(*hashes)[HASH_TEXT] = calloc(pieces, sizeof *hashes);

    if (!hashes || size % CHUNK) {
        refuse("the disk's size must be whole MiB and fit memory");
    }
    for (uint64_t pass = 0;; pass++) {
        uint64_t start = now_ms();
        Sha256 sum;

        sha_begin(&sum);
        for (uint64_t i = 0; i < pieces; i++) {
            char hash[HASH_TEXT];

            read_piece(fd, buffer, i * CHUNK);
            piece_hash(hash, buffer);
            sha_add(&sum, hash, HASH_TEXT - 1);
            if (pass == 0) {
                memcpy(before + i * CHUNK, buffer, CHUNK);
                memcpy(hashes[i], hash, HASH_TEXT);
            } else if (strcmp(hash, hashes[i])) {
                describe_difference(fd, i * CHUNK, buffer, before + i * CHUNK, hashes[i]);
            }
        }
        answer("data pass=%llu sha256=%s ms=%llu", (unsigned long long)pass, sha_end(&sum),
               (unsigned long long)(now_ms() - start));
    }
}

/* Whether the pages from p on follow each other in guest memory. */
static bool in_one_piece(const uint8_t *p, size_t n)
{
    enum { MOST = HUGE / 4096 };
    static uint64_t entry[MOST];
    size_t pages = n / 4096;
    int fd = open("/proc/self/pagemap", O_RDONLY);

    if (fd < 0 || pages > MOST ||
        pread(fd, entry, pages * 8, (off_t)((uintptr_t)p / 4096 * 8)) != (ssize_t)(pages * 8)) {
        fail("pagemap");
    }
    close(fd);
    for (size_t i = 1; i < pages; i++) {
        if (entry[i] != entry[0] + i) {
            return false;
        }
    }
    return true;
}

/* 2 MiB; in one piece, where the kernel has one. */
static uint8_t *huge_buffer(bool *whole)
{
    uint8_t *buffer;

    /* Debian's cloud kernel has them, but switched off. */
    write_file("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
    *whole = false;
    for (int tries = 0; !*whole && tries < 16; tries++) {
        buffer = aligned_alloc(HUGE, HUGE);
        if (!buffer || madvise(buffer, HUGE, MADV_HUGEPAGE)) {
            fail("buffer");
        }
        memset(buffer, 0, HUGE);
        *whole = in_one_piece(buffer, HUGE);
    }
    return buffer;
}

/* Reads blocks past the page cache, one at a time, and says how long that took. */
static void disk_time_command(const char *name, const char *order, uint64_t bytes, uint64_t count)
{
    bool random = !strcmp(order, "random"), whole;
    uint64_t size, seed = 1;
    int fd = open_disk(name, &size);
    uint8_t *buffer = huge_buffer(&whole);

    if (!random && strcmp(order, "sequential")) {
        refuse("the order is random or sequential");
    }
    if (!bytes || bytes > size || bytes > HUGE || bytes % 512 || !count) {
        refuse("blocks are of whole sectors, fit disk and buffer, and there is at least one");
    }
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (uint64_t i = 0; i < count; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t block = (random ? seed >> 20 : i) % (size / bytes);
        if (pread(fd, buffer, bytes, (off_t)(block * bytes)) != (ssize_t)bytes) {
            fail("read");
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    answer("data ns=%lld whole=%d",
           (end.tv_sec - begin.tv_sec) * 1000000000LL + end.tv_nsec - begin.tv_nsec, whole);
}

/* --- network --------------------------------------------------------------- */

/*
 * The peer on the host side answers frame i of ours with frame i of its own.
 * Both carry random bytes; lost frames are sent again, so what is compared in
 * the end is complete.
 */
enum { TEST_ETHERTYPE = 0x88b5, PAYLOAD = 1400, WINDOW = 32 };
/* A frame on a busy machine is late sooner than it is lost. */
enum { FIRST_PATIENCE_MS = 1000, LAST_PATIENCE_MS = 30000 };

static const uint8_t peer_mac[ETH_ALEN] = {2, 0, 0, 0, 0, 1};

typedef struct __attribute__((packed)) {
    struct ethhdr eth;
    uint32_t index; /* network order, as `total` */
    uint32_t total;
    uint8_t payload[PAYLOAD];
} Frame;

/* A socket for frames on this interface, which is up then; `ifr` names it. */
static int packet_socket(const char *interface, struct ifreq *ifr)
{
    struct sockaddr_ll addr = {.sll_family = AF_PACKET, .sll_protocol = htons(TEST_ETHERTYPE)};
    /* Without a protocol it receives nothing before it is bound to its interface. */
    int s = socket(AF_PACKET, SOCK_RAW, 0);

    if (s < 0) {
        fail("socket");
    }
    snprintf(ifr->ifr_name, sizeof ifr->ifr_name, "%.15s", interface);
    if (ioctl(s, SIOCGIFFLAGS, ifr)) {
        fail("SIOCGIFFLAGS");
    }
    ifr->ifr_flags |= IFF_UP;
    if (ioctl(s, SIOCSIFFLAGS, ifr)) {
        fail("SIOCSIFFLAGS");
    }
    for (uint64_t start = now_ms(); !(ifr->ifr_flags & IFF_RUNNING); usleep(10000)) {
        if (now_ms() - start > 20000) {
            refuse("no carrier after 20 s");
        }
        if (ioctl(s, SIOCGIFFLAGS, ifr)) {
            fail("SIOCGIFFLAGS");
        }
    }
    if (ioctl(s, SIOCGIFINDEX, ifr)) {
        fail("SIOCGIFINDEX");
    }
    addr.sll_ifindex = ifr->ifr_ifindex;
    if (bind(s, (struct sockaddr *)&addr, sizeof addr)) {
        fail("bind");
    }
    return s;
}

static void send_frame(int s, Frame *f, uint32_t i, const uint8_t *payloads)
{
    f->index = htonl(i);
    memcpy(f->payload, payloads + (size_t)i * PAYLOAD, PAYLOAD);
    if (send(s, f, sizeof *f, 0) != (ssize_t)sizeof *f && errno != ENOBUFS) {
        fail("send");
    }
}

static void net_command(const char *name, uint32_t total)
{
    char interface[256];
    struct ifreq ifr = {0};
    uint8_t *out = dma_buffer((size_t)total * PAYLOAD), *in = dma_buffer((size_t)total * PAYLOAD);
    bool *done = calloc(total, sizeof *done);
    uint32_t first = 0, next = 0, resent = 0; /* all before `next` were sent */
    uint64_t start, last, patience = FIRST_PATIENCE_MS;
    Frame f = {0};

    class_entry(interface, sizeof interface, "net", name);
    int s = packet_socket(interface, &ifr);
    if (ioctl(s, SIOCGIFHWADDR, &ifr)) {
        fail("SIOCGIFHWADDR");
    }
    memcpy(f.eth.h_dest, peer_mac, ETH_ALEN);
    memcpy(f.eth.h_source, ifr.ifr_hwaddr.sa_data, ETH_ALEN);
    f.eth.h_proto = htons(TEST_ETHERTYPE);
    f.total = htonl(total);
    fill_random(out, (size_t)total * PAYLOAD);

    start = last = now_ms();
    while (first < total) {
        bool again = now_ms() - last > patience;

        if (now_ms() - last > LAST_PATIENCE_MS) {
            answer("error no answer for %d s after %u of %u frames", LAST_PATIENCE_MS / 1000,
                   first, total);
            _exit(1);
        }
        for (; next < total && next < first + WINDOW; next++) {
            send_frame(s, &f, next, out);
        }
        for (uint32_t i = first; again && i < next; i++) {
            if (!done[i]) {
                send_frame(s, &f, i, out);
                resent++;
            }
        }
        if (again) {
            patience *= 2;
        }

        /* All that came before anything is sent again: copies would only add to the delay. */
        struct pollfd p = {.fd = s, .events = POLLIN};
        Frame r;
        for (poll(&p, 1, 100); recv(s, &r, sizeof r, MSG_DONTWAIT) == (ssize_t)sizeof r;) {
            uint32_t i = ntohl(r.index);

            if (!memcmp(r.eth.h_source, peer_mac, ETH_ALEN) && i < total && !done[i]) {
                memcpy(in + (size_t)i * PAYLOAD, r.payload, PAYLOAD);
                done[i] = true;
                last = now_ms();
                patience = FIRST_PATIENCE_MS;
            }
        }
        while (first < total && done[first]) {
            first++;
        }
    }

    Sha256 sum;
    sha_begin(&sum);
    sha_add(&sum, out, (size_t)total * PAYLOAD);
    answer("data mac=%02x:%02x:%02x:%02x:%02x:%02x sent=%llu sent_sha256=%s", f.eth.h_source[0],
           f.eth.h_source[1], f.eth.h_source[2], f.eth.h_source[3], f.eth.h_source[4],
           f.eth.h_source[5], (unsigned long long)total * PAYLOAD, sha_end(&sum));
    sha_begin(&sum);
    sha_add(&sum, in, (size_t)total * PAYLOAD);
    answer("data received=%llu received_sha256=%s resent=%u ms=%llu interface=%s",
           (unsigned long long)total * PAYLOAD, sha_end(&sum), resent,
           (unsigned long long)(now_ms() - start), interface);
}

/* --- edu: a device that does the DMA it is told to --------------------------- */

enum {
    EDU_ID = 0x00,
    EDU_DMA_SOURCE = 0x80,
    EDU_DMA_TARGET = 0x88,
    EDU_DMA_COUNT = 0x90,
    EDU_DMA_COMMAND = 0x98,
    EDU_BUFFER = 0x40000,
    EDU_BAR = 0x100000,
    EDU_PIECE = 4096, /* its buffer */
};

static uint64_t edu_get(volatile uint8_t *bar, int reg)
{
    return *(volatile uint64_t *)(bar + reg);
}

static void edu_put(volatile uint8_t *bar, int reg, uint64_t value)
{
    *(volatile uint64_t *)(bar + reg) = value;
}

/* Moves n bytes between the device's buffer and an address on its bus. */
static void edu_dma(volatile uint8_t *bar, uint64_t address, size_t n, bool to_memory)
{
    edu_put(bar, EDU_DMA_SOURCE, to_memory ? EDU_BUFFER : address);
    edu_put(bar, EDU_DMA_TARGET, to_memory ? address : EDU_BUFFER);
    edu_put(bar, EDU_DMA_COUNT, n);
    edu_put(bar, EDU_DMA_COMMAND, 1 | (to_memory ? 2 : 0));
    for (uint64_t start = now_ms(); edu_get(bar, EDU_DMA_COMMAND) & 1; usleep(2000)) {
        if (now_ms() - start > 10000) {
            refuse("the edu device did not finish its DMA in 10 s");
        }
    }
}

static void check_edu(volatile uint8_t *bar)
{
    if ((*(volatile uint32_t *)(bar + EDU_ID) & 0xff) != 0xed) {
        refuse("this function is not an edu device");
    }
}

static void set_command_bits(int config, off_t at, uint16_t bits)
{
    uint16_t command;

    if (pread(config, &command, 2, at + 4) != 2) {
        fail("config read");
    }
    command |= bits;
    if (pwrite(config, &command, 2, at + 4) != 2) {
        fail("config write");
    }
}

/* The guest-physical address of a page that stays where it is. */
static uint64_t physical_address(const void *page)
{
    uint64_t entry = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY);

    if (mlock(page, 4096) || fd < 0 ||
        pread(fd, &entry, 8, (off_t)((uintptr_t)page / 4096 * 8)) != 8 ||
        !(entry & ((1ull << 55) - 1))) {
        fail("pagemap");
    }
    close(fd);
    return (entry & ((1ull << 55) - 1)) * 4096;
}

static bool all_bytes(const uint8_t *p, uint8_t value, size_t n)
{
    while (n && *p == value) {
        p++;
        n--;
    }
    return !n;
}

/* The registers of an edu device that no driver owns, which may do DMA from now on. */
static uint8_t *edu_open(const char *name)
{
    char path[256];

    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/config", name);
    int config = open(path, O_RDWR);
    if (config < 0) {
        fail(path);
    }
    set_command_bits(config, 0, 0x6);
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/resource0", name);
    int fd = open(path, O_RDWR | O_SYNC);
    if (fd < 0) {
        fail(path);
    }
    uint8_t *bar = mmap(NULL, EDU_BAR, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (bar == MAP_FAILED) {
        fail("mmap of resource0");
    }
    check_edu(bar);
    return bar;
}

/* A function that is in no domain writes to the physical address of a page of ours. */
static void edu_command(const char *name)
{
    uint8_t *bar = edu_open(name);
    uint8_t *page = dma_buffer(4096);

    memset(page, 0x5a, 4096);
    uint64_t address = physical_address(page);
    edu_dma(bar, address, 8, true);
    answer("data address=%#llx changed=%d", (unsigned long long)address,
           !all_bytes(page, 0x5a, 4096));
}

/* It writes to an address of which only the host knows where it led to. */
static void edu_write_command(const char *name, uint64_t address)
{
    edu_dma(edu_open(name), address, 8, true);
}

/* --- a user-space driver through VFIO ---------------------------------------- */

typedef struct {
    int container, group, device;
    uint8_t *bar;
} Vfio;

static Vfio vfio_open(const char *name)
{
    Vfio v;
    char path[256], group[256];
    struct vfio_group_status status = {.argsz = sizeof status};
    struct vfio_region_info bar = {.argsz = sizeof bar, .index = VFIO_PCI_BAR0_REGION_INDEX};
    struct vfio_region_info config = {.argsz = sizeof config,
                                      .index = VFIO_PCI_CONFIG_REGION_INDEX};

    link_name(group, sizeof group, "/sys/bus/pci/devices/%s/iommu_group", name);
    snprintf(path, sizeof path, "/dev/vfio/%.32s", group);
    v.container = open("/dev/vfio/vfio", O_RDWR);
    v.group = open(path, O_RDWR);
    if (v.container < 0 || v.group < 0) {
        fail(path);
    }
    if (ioctl(v.group, VFIO_GROUP_GET_STATUS, &status)) {
        fail("VFIO_GROUP_GET_STATUS");
    }
    if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE)) {
        refuse("the VFIO group is not viable: a driver holds another function of it");
    }
    if (ioctl(v.group, VFIO_GROUP_SET_CONTAINER, &v.container) ||
        ioctl(v.container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)) {
        fail("VFIO_SET_IOMMU");
    }
    v.device = ioctl(v.group, VFIO_GROUP_GET_DEVICE_FD, name);
    if (v.device < 0 || ioctl(v.device, VFIO_DEVICE_GET_REGION_INFO, &bar) ||
        ioctl(v.device, VFIO_DEVICE_GET_REGION_INFO, &config)) {
        fail("VFIO_GROUP_GET_DEVICE_FD");
    }
    set_command_bits(v.device, (off_t)config.offset, 0x6);
    v.bar = mmap(NULL, EDU_BAR, PROT_READ | PROT_WRITE, MAP_SHARED, v.device, (off_t)bar.offset);
    if (v.bar == MAP_FAILED) {
        fail("mmap of BAR 0");
    }
    check_edu(v.bar);
    return v;
}

static void vfio_map(const Vfio *v, void *memory, uint64_t iova, uint64_t size, uint32_t rights)
{
    struct vfio_iommu_type1_dma_map map = {
        .argsz = sizeof map,
        .flags = rights,
        .vaddr = (uintptr_t)memory,
        .iova = iova,
        .size = size,
    };

    if (ioctl(v->container, VFIO_IOMMU_MAP_DMA, &map)) {
        fail("VFIO_IOMMU_MAP_DMA");
    }
}

static void vfio_unmap(const Vfio *v, uint64_t iova, uint64_t size)
{
    struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof unmap, .iova = iova, .size = size};

    if (ioctl(v->container, VFIO_IOMMU_UNMAP_DMA, &unmap) || unmap.size != size) {
        fail("VFIO_IOMMU_UNMAP_DMA");
    }
}

/*
 * Maps [iova, iova + size), lets the edu device carry pieces of it from its
 * first half to its second half, then takes rights and mapping away and tries
 * again: the memory must not change.
 */
static void vfio_command(const char *name, uint64_t iova, uint64_t size)
{
    Vfio v = vfio_open(name);
    uint8_t *memory = dma_buffer(size);
    uint64_t half = size / 2;
    /* The first and last page of the half, and one across a page boundary. */
    const uint64_t pieces[] = {0, half / 2 + 0x123, half - EDU_PIECE};
    uint64_t copied = 0;

    fill_random(memory, half);
    vfio_map(&v, memory, iova, size, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        uint64_t at = pieces[i];
        edu_dma(v.bar, iova + at, EDU_PIECE, false);
        edu_dma(v.bar, iova + half + at, EDU_PIECE, true);
        if (memcmp(memory + at, memory + half + at, EDU_PIECE)) {
            answer("error the piece at offset %#llx came back changed", (unsigned long long)at);
            _exit(1);
        }
        copied += EDU_PIECE;
    }
    vfio_unmap(&v, iova, size);
    answer("data step=mapped copied=%llu", (unsigned long long)copied);

    memset(memory, 0x5a, size);
    edu_dma(v.bar, iova, 8, true);
    if (!all_bytes(memory, 0x5a, size)) {
        refuse("a DMA write changed memory after the mapping was removed");
    }
    answer("data step=unmapped iova=%#llx unchanged=1", (unsigned long long)iova);

    vfio_map(&v, memory, iova, size, VFIO_DMA_MAP_FLAG_READ);
    edu_dma(v.bar, iova + EDU_PIECE, 8, false);
    edu_dma(v.bar, iova + EDU_PIECE, 8, true);
    if (!all_bytes(memory, 0x5a, size)) {
        refuse("a DMA write changed memory that was mapped for reading only");
    }
    vfio_unmap(&v, iova, size);
    answer("data step=read-only iova=%#llx unchanged=1", (unsigned long long)(iova + EDU_PIECE));
}

/*
 * Maps one page at iova, shows that the edu device reaches it, and keeps it
 * mapped until this kernel ends.  The device's buffer is random then, the page
 * full of 0x5a: the host would see what the device wrote to it.
 */
static _Noreturn void vfio_hold_command(const char *name, uint64_t iova)
{
    Vfio v = vfio_open(name);
    uint8_t *page = dma_buffer(4096);

    fill_random(page, 4096);
    vfio_map(&v, page, iova, 4096, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
    edu_dma(v.bar, iova, EDU_PIECE, false);
    memset(page, 0x5a, 4096);
    edu_dma(v.bar, iova, 8, true);
    bool reached = !all_bytes(page, 0x5a, 8);
    memset(page, 0x5a, 4096);
    answer("data address=%#llx reached=%d", (unsigned long long)physical_address(page), reached);
    answer("ok");
    for (;;) {
        pause();
    }
}

/* --- another kernel ------------------------------------------------------------ */

/* The words from args[0] on with one space between them. */
static void join(char *to, size_t room, char **args, int n)
{
    size_t at = 0;

    *to = 0;
    for (int i = 0; i < n && at < room; i++) {
        at += (size_t)snprintf(to + at, room - at, i ? " %s" : "%s", args[i]);
    }
    if (at >= room) {
        refuse("the words are too long together");
    }
}

/*
 * Loads /kexec/kernel and /kexec/initramfs with this command line, to be
 * started by the command kexec or, with `crash`, by a panic.
 */
static void kexec_load_command(const char *when, const char *command_line)
{
    unsigned long flags = !strcmp(when, "crash") ? KEXEC_FILE_ON_CRASH : 0;
    int kernel = open("/kexec/kernel", O_RDONLY);
    int initramfs = open("/kexec/initramfs", O_RDONLY);

    if (kernel < 0 || initramfs < 0) {
        fail("/kexec");
    }
    if (syscall(SYS_kexec_file_load, kernel, initramfs, strlen(command_line) + 1, command_line,
                flags)) {
        fail("kexec_file_load");
    }
}

/* The line is this kernel's last: from it on, the time is the kernel's. */
static _Noreturn void leave(int how)
{
    sync();
    answer("data leaving=1");
    tcdrain(port);
    reboot(how);
    fail("reboot");
}

/* --- modules ------------------------------------------------------------------- */

/* A line of the folder's "list" is a file name and the module's parameters. */
static void load_modules(const char *folder)
{
    char line[512];
    snprintf(line, sizeof line, "%.200s/list", folder);
    FILE *list = fopen(line, "r");

    while (list && fgets(line, sizeof line, list)) {
        char path[500], *params;

        line[strcspn(line, "\n")] = 0;
        params = line + strcspn(line, " ");
        if (*params) {
            *params++ = 0;
        }
        snprintf(path, sizeof path, "%.200s/%.250s", folder, line);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, params, 0) && errno != EEXIST)) {
            printf("agent: module %s does not load: %s\n", line, strerror(errno));
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    if (list) {
        fclose(list);
    }
}

/* --- the other end of a tap ------------------------------------------------------- */

/* As distributions do before they power off. */
static void links_down_command(void)
{
    struct if_nameindex *all = if_nameindex();
    int s = socket(AF_INET, SOCK_DGRAM, 0);

    if (!all) {
        fail("if_nameindex");
    }
    if (s < 0) {
        fail("socket");
    }
    for (const struct if_nameindex *i = all; i->if_index; i++) {
        struct ifreq ifr = {0};

        snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%.15s", i->if_name);
        if (ioctl(s, SIOCGIFFLAGS, &ifr)) {
            fail("SIOCGIFFLAGS");
        }
        ifr.ifr_flags &= ~IFF_UP;
        if (ioctl(s, SIOCSIFFLAGS, &ifr)) {
            fail("SIOCSIFFLAGS");
        }
    }
    if_freenameindex(all);
    /* What was unmapped lazily is on its way to the IOMMU after 10 milliseconds. */
    usleep(100000);
}

/*
 * Answers each frame that comes out of a network interface, which may appear
 * later, with its payload inverted, until it is killed.
 */
static _Noreturn void echo_command(const char *interface)
{
    struct ifreq ifr = {0};
    uint8_t frame[2048];
    char path[300];

    answer("data pid=%d", getpid());
    snprintf(path, sizeof path, "/sys/class/net/%.200s", interface);
    for (uint64_t start = now_ms(); access(path, F_OK); usleep(20000)) {
        if (now_ms() - start > 60000) {
            refuse("there is no such interface after 60 s");
        }
    }
    int s = packet_socket(interface, &ifr);
    answer("data listens=1");
    for (;;) {
        ssize_t n = recv(s, frame, sizeof frame, 0);
        if (n < 0 && errno != ENETDOWN) {
            fail("recv");
        }
        if (n <= ETH_HLEN || !memcmp(frame + ETH_ALEN, peer_mac, ETH_ALEN)) {
            continue; /* ours, perhaps */
        }
        memcpy(frame, frame + ETH_ALEN, ETH_ALEN);
        memcpy(frame + ETH_ALEN, peer_mac, ETH_ALEN);
        for (ssize_t i = ETH_HLEN; i < n; i++) {
            frame[i] ^= 0xff;
        }
        send(s, frame, (size_t)n, 0);
    }
}

/* --- programs ------------------------------------------------------------------ */

/*
 * Runs a program of the initramfs to its end.  Words of the form NAME=VALUE
 * before its path are put into its environment.  It writes to the console.
 */
static void program_command(char **args)
{
    int status;

    for (; *args && strchr(*args, '='); args++) {
        putenv(*args);
    }
    if (!*args) {
        refuse("no program is named");
    }
    signal(SIGCHLD, SIG_DFL);
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        execv(*args, args);
        printf("agent: %s: %s\n", *args, strerror(errno));
        _exit(127);
    }
    if (child < 0) {
        fail("fork");
    }
    answer("data pid=%d", child);
    if (waitpid(child, &status, 0) != child) {
        fail("waitpid");
    }
    answer("data status=%d signal=%d", WIFEXITED(status) ? WEXITSTATUS(status) : -1,
           WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

/* --- commands ---------------------------------------------------------------- */

static uint64_t number(const char *text)
{
    char *end;

    errno = 0;
    uint64_t value = strtoull(text, &end, 0);
    if (errno || *end || end == text) {
        answer("error %s is not a number", text);
        _exit(1);
    }
    return value;
}

static void run_command(char **args, int n)
{
    const char *verb = args[0];

    if (!strcmp(verb, "devices") && n == 1) {
        devices_command();
    } else if (!strcmp(verb, "read") && n == 2) {
        read_command(args[1]);
    } else if (!strcmp(verb, "write") && n >= 3) {
        char text[256];
        join(text, sizeof text, args + 2, n - 2);
        write_file(args[1], text);
    } else if (!strcmp(verb, "disk-read") && n == 2) {
        disk_read_command(args[1]);
    } else if (!strcmp(verb, "disk-write") && n == 3) {
        disk_write_command(args[1], number(args[2]));
    } else if (!strcmp(verb, "disk-loop") && n == 2) {
        disk_loop_command(args[1]);
    } else if (!strcmp(verb, "disk-time") && n == 5) {
        disk_time_command(args[1], args[2], number(args[3]), number(args[4]));
    } else if (!strcmp(verb, "net") && n == 3) {
        net_command(args[1], (uint32_t)number(args[2]));
    } else if (!strcmp(verb, "links-down") && n == 1) {
        links_down_command();
    } else if (!strcmp(verb, "edu") && n == 2) {
        edu_command(args[1]);
    } else if (!strcmp(verb, "vfio") && n == 4) {
        vfio_command(args[1], number(args[2]), number(args[3]));
    } else if (!strcmp(verb, "edu-write") && n == 3) {
        edu_write_command(args[1], number(args[2]));
    } else if (!strcmp(verb, "vfio-hold") && n == 3) {
        vfio_hold_command(args[1], number(args[2]));
    } else if (!strcmp(verb, "modules") && n <= 2) {
        load_modules(n == 2 ? args[1] : "/modules");
    } else if (!strcmp(verb, "mount") && n == 3) {
        mount_command(args[1], args[2]);
    } else if (!strcmp(verb, "unmount") && n == 1) {
        if (umount(MOUNTED)) {
            fail("umount");
        }
    } else if (!strcmp(verb, "echo") && n == 2) {
        echo_command(args[1]);
    } else if (!strcmp(verb, "program") && n >= 2) {
        program_command(args + 1);
    } else if (!strcmp(verb, "kill") && n == 3) {
        if (kill((pid_t)number(args[1]), (int)number(args[2]))) {
            fail("kill");
        }
    } else if (!strcmp(verb, "kexec-load") && n >= 3) {
        char text[512];
        join(text, sizeof text, args + 2, n - 2);
        kexec_load_command(args[1], text);
    } else if (!strcmp(verb, "kexec") && n == 1) {
        leave(RB_KEXEC);
    } else if (!strcmp(verb, "reboot") && n == 1) {
        leave(RB_AUTOBOOT);
    } else {
        refuse("no such command, or a wrong number of arguments");
    }
    answer("ok");
}

static void serve(char *line)
{
    enum { MOST = 128 };
    char *args[MOST + 1] = {0};
    int n = 0;

    for (char *word = strtok(line, " \r"); word && n < MOST; word = strtok(NULL, " \r")) {
        args[n++] = word;
    }
    if (n < 2) {
        return;
    }
    tag = args[0];
    if (!strcmp(args[1], "poweroff")) {
        leave(RB_POWER_OFF);
    }
    pid_t child = fork();
    if (child == 0) {
        run_command(args + 1, n - 1);
        _exit(0);
    }
    if (child < 0) {
        answer("error fork: %s", strerror(errno));
    }
}

static void open_port(void)
{
    const char *name = getenv("agent");
    char path[64];
    struct termios raw;

    snprintf(path, sizeof path, "/dev/%s", name ? name : "ttyS1");
    port = open(path, O_RDWR | O_NOCTTY);
    if (port < 0 || tcgetattr(port, &raw)) {
        printf("agent: %s: %s\n", path, strerror(errno));
        reboot(RB_POWER_OFF);
    }
    cfmakeraw(&raw);
    cfsetspeed(&raw, B115200);
    tcsetattr(port, TCSANOW, &raw);
}

int main(void)
{
    char line[8192];
    size_t used = 0;

    if (mount("proc", "/proc", "proc", 0, NULL) || mount("sysfs", "/sys", "sysfs", 0, NULL) ||
        mount("devtmpfs", "/dev", "devtmpfs", 0, NULL)) {
        perror("agent: mount");
    }
    int console = open("/dev/console", O_RDWR);
    if (console >= 0) {
        dup2(console, 1);
        dup2(console, 2);
        setvbuf(stdout, NULL, _IOLBF, 0);
    }
    signal(SIGCHLD, SIG_IGN);
    open_port();
    const char *modules = getenv("modules");
    if (!modules || strcmp(modules, "held")) {
        load_modules("/modules");
    }
    /* A kernel before this one may have ended within a line. */
    if (write(port, "\n", 1) != 1) {
        perror("agent: write");
    }
    answer("ready");
    for (;;) {
        ssize_t n = read(port, line + used, sizeof line - 1 - used);
        if (n <= 0) {
            if (n < 0 && errno == EINTR) {
                continue;
            }
            break;
        }
        used += (size_t)n;
        line[used] = 0;
        char *end;
        while ((end = strchr(line, '\n'))) {
            *end = 0;
            char command[sizeof line];
            memcpy(command, line, (size_t)(end - line) + 1);
            used -= (size_t)(end - line) + 1;
            memmove(line, end + 1, used + 1);
            serve(command);
        }
        if (used == sizeof line - 1) {
            used = 0;
        }
    }
    reboot(RB_POWER_OFF);
    return 1;
}
