/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Device-level test bench: one QEMU per test case, no firmware and no guest
 * code.  The test programs PCI itself, builds virtqueues by hand in guest
 * memory (so malformed ones are possible) and lets "edu" functions do real DMA.
 *
 * Guest memory (RAM_SIZE bytes from vt_ram):
 *   QUEUE_BASE  virtqueues
 *   ARENA_BASE  request and event buffers, handed out by vt_alloc()
 *   MAILBOX     page through which edu buffers are filled and emptied
 *   page(n)     pages for the tests to use as DMA targets
 */
#ifndef VIOMMU_TEST_H
#define VIOMMU_TEST_H

#include "qemu/osdep.h"

#include "libqtest.h"
#include "qemu/bswap.h"

#define KIB 1024ull
#define MIB (1024ull * KIB)
#define PAGE 0x1000ull

#define RAM_SIZE (128 * MIB)
#define QUEUE_BASE (vt_ram + 0x100000ull)
#define ARENA_BASE (vt_ram + 0x200000ull)
#define ARENA_END (vt_ram + 0xf00000ull)
#define MAILBOX (vt_ram + 0xf00000ull)

/* Where the machine's RAM begins: 0 on q35. */
extern uint64_t vt_ram;

/* The n-th page of DMA memory: from 16 MiB on. */
static inline uint64_t page(unsigned n)
{
    return vt_ram + 0x1000000ull + n * PAGE;
}

/* Nanoseconds of virtual time after which an edu transfer is certainly over. */
#define EDU_DMA_NS 200000000ll

/* ---- wire facts of the virtio specification ---- */

enum {
    VS_UNANSWERED = -1, /* used length 0 */
    VS_OK = 0,
    VS_IOERR,
    VS_UNSUPP,
    VS_DEVERR,
    VS_INVAL,
    VS_RANGE,
    VS_NOENT,
    VS_FAULT,
    VS_NOMEM,
};

enum {
    REQ_ATTACH = 1,
    REQ_DETACH,
    REQ_MAP,
    REQ_UNMAP,
    REQ_PROBE,
};

#define ATTACH_BYPASS 1u
#define MAP_READ 1u
#define MAP_WRITE 2u
#define MAP_MMIO 4u
#define MAP_RW (MAP_READ | MAP_WRITE)

#define BIT64(n) (1ull << (n))
#define F_INPUT_RANGE BIT64(0)
#define F_DOMAIN_RANGE BIT64(1)
#define F_MAP_UNMAP BIT64(2)
#define F_BYPASS BIT64(3)
#define F_PROBE BIT64(4)
#define F_MMIO BIT64(5)
#define F_BYPASS_CONFIG BIT64(6)
#define F_INDIRECT BIT64(28)
#define F_EVENT_IDX BIT64(29)
#define F_VERSION_1 BIT64(32)
#define F_ACCESS_PLATFORM BIT64(33)
#define F_RING_RESET BIT64(40)
/* What a plain driver takes: everything of this device type. */
#define F_USUAL                                                                                    \
    (F_INPUT_RANGE | F_DOMAIN_RANGE | F_MAP_UNMAP | F_PROBE | F_MMIO | F_BYPASS_CONFIG |           \
     F_VERSION_1)

#define STATUS_ACKNOWLEDGE 1u
#define STATUS_DRIVER 2u
#define STATUS_DRIVER_OK 4u
#define STATUS_FEATURES_OK 8u
#define STATUS_NEEDS_RESET 64u

#define CONFIG_PAGE_SIZE_MASK 0u
#define CONFIG_INPUT_START 8u
#define CONFIG_INPUT_END 16u
#define CONFIG_DOMAIN_START 24u
#define CONFIG_DOMAIN_END 28u
#define CONFIG_PROBE_SIZE 32u
#define CONFIG_BYPASS 36u
#define CONFIG_SIZE 40u

#define FAULT_UNKNOWN 0u
#define FAULT_DOMAIN 1u
#define FAULT_MAPPING 2u
#define FAULT_F_READ 1u
#define FAULT_F_WRITE 2u
#define FAULT_F_ADDRESS 256u
#define FAULT_RECORD_SIZE 24u

#define RESV_RESERVED 0u
#define RESV_MSI 1u
#define MSI_START 0xfee00000ull
#define MSI_END 0xfeefffffull

/* ---- PCI ---- */

typedef struct Vt Vt;

/* bus << 8 | device << 3 | function */
static inline uint16_t rid(unsigned bus, unsigned dev, unsigned fn)
{
    return (uint16_t)(bus << 8 | dev << 3 | fn);
}

uint8_t pci_read8(Vt *vt, uint16_t bdf, unsigned off);
uint16_t pci_read16(Vt *vt, uint16_t bdf, unsigned off);
uint32_t pci_read32(Vt *vt, uint16_t bdf, unsigned off);
void pci_write16(Vt *vt, uint16_t bdf, unsigned off, uint16_t value);
void pci_write32(Vt *vt, uint16_t bdf, unsigned off, uint32_t value);

/* Beyond the first 256 bytes too. */
uint16_t pci_read16_ext(Vt *vt, uint16_t bdf, unsigned off);
void pci_write16_ext(Vt *vt, uint16_t bdf, unsigned off, uint16_t value);

/* Offset of the first capability `id` after `from` (0: from the start), or 0. */
unsigned pci_find_cap(Vt *vt, uint16_t bdf, uint8_t id, unsigned from);
/* Gives BAR `n` an address below 4 GiB and returns it; 0 if there is no BAR. */
uint64_t pci_place_bar(Vt *vt, uint16_t bdf, unsigned n);
void pci_enable(Vt *vt, uint16_t bdf);

/* Bus numbers of a bridge; opens its memory window the first time. */
void bridge_set_buses(Vt *vt, uint16_t bdf, uint8_t primary, uint8_t secondary,
                      uint8_t subordinate);
void bridge_open(Vt *vt, uint16_t bdf, uint8_t secondary, uint8_t subordinate);

/* ---- virtio ---- */

typedef struct Virtio {
    Vt *vt;
    uint16_t bdf;      /* of a device on PCI */
    uint64_t mmio;     /* registers of its virtio-mmio transport; 0 on PCI */
    uint64_t dma_base; /* what the device adds to guest-physical ring addresses */
    uint64_t common;
    uint64_t isr;
    uint64_t device;
    uint64_t notify;
    uint32_t notify_multiplier;
    uint64_t features; /* accepted by the driver */
} Virtio;

typedef struct Queue {
    Virtio *dev;
    uint16_t index;
    uint16_t size;
    uint16_t next_desc;
    uint16_t avail_idx;
    uint16_t used_idx;
    uint64_t desc, avail, used;
    uint64_t doorbell;
    uint64_t buffer[256]; /* first buffer of the chain that starts here */
} Queue;

typedef struct Seg {
    uint64_t addr;
    uint32_t len;
    bool write;
} Seg;

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u

void virtio_probe(Vt *vt, Virtio *dev, uint16_t bdf);

/* Registers of a virtio-mmio transport; all are 32 bits wide. */
enum {
    MMIO_MAGIC = 0x000,
    MMIO_VERSION = 0x004,
    MMIO_DEVICE_ID = 0x008,
    MMIO_VENDOR_ID = 0x00c,
    MMIO_DF = 0x010,
    MMIO_DFSELECT = 0x014,
    MMIO_GF = 0x020,
    MMIO_GFSELECT = 0x024,
    MMIO_Q_SELECT = 0x030,
    MMIO_Q_SIZE_MAX = 0x034,
    MMIO_Q_SIZE = 0x038,
    MMIO_Q_READY = 0x044,
    MMIO_Q_NOTIFY = 0x050,
    MMIO_ISR = 0x060,
    MMIO_ISR_ACK = 0x064,
    MMIO_STATUS = 0x070,
    MMIO_Q_DESC = 0x080,
    MMIO_Q_AVAIL = 0x090,
    MMIO_Q_USED = 0x0a0,
    MMIO_GENERATION = 0x0fc,
    MMIO_CONFIG = 0x100,
};

#define MMIO_MAGIC_VALUE 0x74726976u
#define ID_NET 1u
#define ID_BLK 2u
#define ID_RNG 4u
#define ID_IOMMU 23u

uint32_t mmio_read(Virtio *dev, unsigned reg);
void mmio_write(Virtio *dev, unsigned reg, uint32_t value);
/* Checks that a modern transport with a device of this type is at `base`. */
void virtio_mmio_probe(Vt *vt, Virtio *dev, uint64_t base, uint32_t device_id);
uint8_t virtio_status(Virtio *dev);
void virtio_set_status(Virtio *dev, uint8_t status);
void virtio_reset(Virtio *dev);
uint64_t virtio_offered(Virtio *dev);
/* Resets and writes `features`; what else a driver does then is left to the caller. */
void virtio_choose(Virtio *dev, uint64_t features);
/* The same, then goes to FEATURES_OK; false if the device takes FEATURES_OK back. */
bool virtio_negotiate(Virtio *dev, uint64_t features);
/* The same of a device that somebody else has reset. */
bool virtio_accept(Virtio *dev, uint64_t features);
void virtio_driver_ok(Virtio *dev);

void queue_init(Virtio *dev, Queue *q, uint16_t index);
void queue_write_desc(Queue *q, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags,
                      uint16_t next);
/* Puts a head into the available ring. */
void queue_publish(Queue *q, uint16_t head);
/* Builds a chain and publishes it; returns its head. */
uint16_t queue_add(Queue *q, const Seg *segs, unsigned n);
uint16_t queue_add_indirect(Queue *q, const Seg *segs, unsigned n);
void queue_kick(Queue *q);
uint16_t queue_device_used_idx(Queue *q);
/* Next used element, if there is one now. */
bool queue_pop(Queue *q, uint32_t *head, uint32_t *len);
/* Next used element; fails the test if none comes. */
uint32_t queue_wait(Queue *q, uint32_t *len);

/* ---- edu ---- */

typedef struct Edu {
    Vt *vt;
    uint16_t bdf;
    uint64_t regs;
} Edu;

#define EDU_BUFFER 0x40000ull
#define EDU_ARGS "edu,dma_mask=0xffffffffffff"

/* Gives the function a BAR and enables it; with `prime` also edu_prime(). */
void edu_init(Vt *vt, Edu *edu, uint16_t bdf, bool prime);
/* Loads edu_pattern() into the lower half of the edu's buffer, through the
 * mailbox: the function must bypass or have the mailbox mapped. */
void edu_prime(Edu *edu);
uint8_t edu_pattern(unsigned i);
/* Raw transfers between the edu's 4 KiB buffer and an I/O address. */
void edu_to_ram(Edu *edu, uint64_t iova, unsigned buf_off, unsigned len);
void edu_from_ram(Edu *edu, uint64_t iova, unsigned buf_off, unsigned len);

/* Writes the pattern's first `len` bytes to `iova`; true if they arrived at
 * `phys`, false if `phys` is untouched.  Anything in between fails the test. */
bool edu_write_lands(Edu *edu, uint64_t iova, uint64_t phys, unsigned len);
/* Reads `len` bytes at `iova` with known bytes at `phys`; true if they are what
 * the function got, false if it got nothing of them.  Needs the mailbox. */
bool edu_read_sees(Edu *edu, uint64_t iova, uint64_t phys, unsigned len);

/* ---- the bench ---- */

struct Vt {
    QTestState *qts;
    uint64_t ecam;          /* memory-mapped configuration space */
    bool ecam_only;         /* there are no ports for it */
    uint32_t bus_memory;    /* where bus 0's memory window begins */
    uint32_t next_bar[256]; /* per bus, within the bus's window */
    uint64_t next_queue;
    uint64_t arena;
    int printed;         /* vt_logged(): what QEMU prints */
    off_t printed_taken; /* how much of it has been looked at */
    Virtio iommu;
    Queue req;
    Queue evt;
    uint32_t probe_size;
    Edu edu[2];
};

#define IOMMU_BDF 0x0010u /* 00:02.0 */
#define EDU0 0x0018u      /* 00:03.0 */
#define EDU1 0x0020u      /* 00:04.0 */
#define NOBODY 0x00f0u    /* 00:1e.0: empty */

/* Starts q35 with these arguments and nothing else. */
Vt *vt_machine(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* The same with Arm's virt machine. */
Vt *vt_machine_virt(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* The same with microvm, without ACPI unless the arguments say otherwise. */
Vt *vt_machine_microvm(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* q35 with the IOMMU (plus ",props") at 00:02.0, two primed edu functions and
 * further arguments; finds the IOMMU but does not touch it. */
Vt *vt_boot(const char *iommu_props, const char *more_args);
/* As vt_boot, then brings the driver up with F_USUAL. */
Vt *vt_new(void);
Vt *vt_new_with(const char *iommu_props, const char *more_args);
void vt_free(Vt *vt);

/* start(), and all that its QEMU prints is kept for vt_printed(). */
Vt *vt_logged(Vt *(*start)(void));
/* What QEMU has printed since the last call, to be freed. */
char *vt_printed(Vt *vt);
/* How often QEMU has made a change of the memory topology take effect since the last call of
 * this or vt_printed(). Needs vt_logged() and TRACE_COMMITS. */
unsigned vt_commits(Vt *vt);
#define TRACE_COMMITS "-trace flatview_new "
/* A counter of the IOMMU `iommu0`, from its property `stats`. */
int64_t vt_counter(Vt *vt, const char *name);

/* Places the BARs again after a system reset. */
void vt_rediscover(Vt *vt);
/* Negotiates, sets the queues up; with `driver_ok` goes live. */
void vt_bring_up(Vt *vt, uint64_t features, bool driver_ok);
void vt_system_reset(Vt *vt);

/* Some iterations of QEMU's main loop: whatever a kick started has happened. */
void vt_settle(Vt *vt);
/* Waits until the device is freed; its parts are before, and have events of their own. */
void vt_wait_deleted(Vt *vt, const char *id);
uint64_t vt_alloc(Vt *vt, uint64_t size);

uint8_t vt_config8(Vt *vt, unsigned off);
uint32_t vt_config32(Vt *vt, unsigned off);
uint64_t vt_config64(Vt *vt, unsigned off);
void vt_set_bypass(Vt *vt, uint8_t value);
uint64_t vt_granule(Vt *vt);

/* ---- requests ---- */

typedef struct Reply {
    uint32_t used;
    uint32_t writable;
    uint8_t *out; /* the writable part; 0xa5 where the device wrote nothing */
} Reply;

#define UNWRITTEN 0xa5

typedef struct Request {
    uint8_t bytes[128];
    unsigned len;
} Request;

Request req_attach(uint32_t domain, uint32_t endpoint, uint32_t flags);
Request req_detach(uint32_t domain, uint32_t endpoint);
Request req_map(uint32_t domain, uint64_t iova, uint64_t last, uint64_t phys, uint32_t flags);
Request req_unmap(uint32_t domain, uint64_t iova, uint64_t last);
Request req_probe(uint32_t endpoint);

/* Sends readable bytes with `writable` bytes of room and waits for the answer. */
Reply vt_send(Vt *vt, const Request *req, uint32_t writable);
void reply_free(Reply *reply);
bool reply_unwritten(const Reply *reply);
/* Sends with room for a tail (and properties, for PROBE); the status, or
 * VS_UNANSWERED.  Checks used length and the tail's reserved bytes. */
int vt_status(Vt *vt, const Request *req);

int vt_attach(Vt *vt, uint32_t domain, uint32_t endpoint, uint32_t flags);
int vt_detach(Vt *vt, uint32_t domain, uint32_t endpoint);
int vt_map(Vt *vt, uint32_t domain, uint64_t iova, uint64_t last, uint64_t phys, uint32_t flags);
int vt_unmap(Vt *vt, uint32_t domain, uint64_t iova, uint64_t last);
int vt_probe(Vt *vt, uint32_t endpoint);
/* ATTACHes and maps the mailbox at its own address, so that edu_read_sees()
 * works for the members of `domain`. */
void vt_attach_with_mailbox(Vt *vt, uint32_t domain, uint32_t endpoint);

const char *status_name(int status);
#define assert_status(actual, expected)                                                            \
    do {                                                                                           \
        int actual_ = (actual), expected_ = (expected);                                            \
        if (actual_ != expected_) {                                                                \
            g_autofree char *text_ = g_strdup_printf(                                              \
                "%s: %s, expected %s", #actual, status_name(actual_), status_name(expected_));     \
            g_assertion_message(G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, text_);               \
        }                                                                                          \
    } while (0)

/* The device is not broken and answers requests. */
void vt_assert_alive(Vt *vt);

/* ---- PROBE properties ---- */

typedef struct ResvMem {
    uint8_t subtype;
    uint64_t start;
    uint64_t end;
} ResvMem;

/* Parses the properties area strictly; returns the number of RESV_MEM. */
unsigned probe_regions(const uint8_t *area, uint32_t size, ResvMem *out, unsigned cap);
/* PROBEs and parses. */
unsigned vt_probe_regions(Vt *vt, uint32_t endpoint, ResvMem *out, unsigned cap);

/* ---- events ---- */

typedef struct Fault {
    uint8_t reason;
    uint32_t flags;
    uint32_t endpoint;
    uint64_t address;
    uint8_t raw[FAULT_RECORD_SIZE];
} Fault;

/* Posts `n` event buffers of `size` bytes each and kicks. */
void vt_post_events(Vt *vt, unsigned n, uint32_t size);
/* The next record that has been delivered; false if there is none. */
bool vt_pop_fault(Vt *vt, Fault *out);
Fault vt_wait_fault(Vt *vt);
/* How many records have been delivered since the last look. */
unsigned vt_drain_faults(Vt *vt);

/* ---- command lines that must fail, and QMP ---- */

typedef struct Run {
    int status; /* as from waitpid() */
    char *out;
    char *err;
} Run;

/* Runs QEMU with these arguments until it ends; `fmt` is a shell command's
 * tail. */
Run qemu_run(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void run_free(Run *run);
/* Exit status 1 and exactly one sentence of error, on q35. */
void assert_one_sentence(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* The same on the machine that the arguments name; the sentence holds `text`. */
void assert_refused(const char *text, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* ---- the runner ---- */

typedef struct Case {
    const char *name; /* ID/what */
    void (*run)(void);
} Case;

/* Each case runs in a process of its own with a time limit, so a crash or a
 * hang of QEMU is that case's failure only. */
int vt_main(int argc, char **argv, const char *arch, const Case *cases, size_t count);
#define VT_MAIN_ARCH(arch, cases)                                                                  \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        return vt_main(argc, argv, arch, cases, G_N_ELEMENTS(cases));                              \
    }
#define VT_MAIN(cases) VT_MAIN_ARCH("x86_64", cases)

#endif
