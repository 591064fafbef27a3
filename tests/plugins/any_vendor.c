/* A plugin that is another plugin, which is told that every device is Intel's.

The plugin of OpenVINO offers devices of one vendor only, although the runtime inside executes on any x86 processor.
It asks ONNX Runtime for the vendor; here it is handed a copy of the runtime's table of functions in which that one
function answers for all. For tests on other processors.

VENDOR: place of HardwareDevice_VendorId in OrtApi, which is only ever appended to. PLUGIN: path of the real library. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <unistd.h>

#define ENTRIES 1024 /* more than there are; what cannot be read is not copied */

typedef struct {
    const void *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
} Base;
typedef void *(*Create)(const char *, const Base *, const void *, void **, size_t, size_t *);
typedef void *(*Release)(void *);

static const Base *real;
static void *table[ENTRIES];

static uint32_t intel(const void *device)
{
    (void)device;
    return 0x8086;
}

static const void *get_api(uint32_t version)
{
    const void *api = real->get_api(version);
    struct iovec from = {(void *)api, sizeof table}, into = {table, sizeof table};
    if (!api || process_vm_readv(getpid(), &into, 1, &from, 1, 0) < (long)((VENDOR + 1) * sizeof(void *)))
        return NULL;
    table[VENDOR] = (void *)intel;
    return table;
}

static void *symbol(const char *name)
{
    static void *library;
    if (!library)
        library = dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
    return library ? dlsym(library, name) : NULL;
}

void *CreateEpFactories(const char *name, const Base *base, const void *logger, void **made, size_t most, size_t *count)
{
    static Base changed;
    Create create = (Create)symbol("CreateEpFactories");
    *count = 0;
    if (!create)
        return NULL;
    real = base;
    changed = *base;
    changed.get_api = get_api;
    return create(name, &changed, logger, made, most, count);
}

void *ReleaseEpFactory(void *factory)
{
    Release release = (Release)symbol("ReleaseEpFactory");
    return release ? release(factory) : NULL;
}
