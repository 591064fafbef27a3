/* NVML as far as bench/collector/providers/nvml.py calls it, by the names that the binding looks up: libnvidia-ml.so for tests.
 *
 * Each answer is a line "key value" of the file that FAKE_NVML names, read anew at every call. A key holds for all
 * devices, or for one: "1.power 70000". What has no line is not supported. "error.FUNCTION code" makes a function fail.
 * Processes: "processes PID PID …"; a line without a number is a device on which nobody computes.
 * Fields: "field.ID value" by GPU scope, "field.ID.SCOPE value" by another; "field.ID.error code", "field.ID.type n".
 * Layouts and codes are those of nvml.h (nvidia-ml-py 13.615.71 repeats them).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned int uint;
typedef unsigned long long ull;
typedef const int *Device;

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, INSUFFICIENT_SIZE = 7, VERSION_MISMATCH = 25 };

typedef struct { char legacy[16]; uint domain, bus, device, ids, subsystem; char bus_id[32]; } Pci;
typedef union { double d; ull ull_; } Value;
typedef struct { uint field, scope; long long timestamp, latency; uint type, result; Value value; } Field;
typedef struct { uint version; ull total, reserved, free, used; } Memory2;
typedef struct { uint gpu, memory; } Utilization;
typedef struct { ull reference, violation; } Violation;
typedef struct { ull total, free, used; } Bar1;
typedef struct { uint pid; ull memory; uint gpu_instance, compute_instance; } Process;

static const int indices[] = {0, 1, 2, 3};
static int opened, inits, shutdowns;

int fake_opened(void) { return opened; }
int fake_inits(void) { return inits; }
int fake_shutdowns(void) { return shutdowns; }
void fake_reset(void) { opened = inits = shutdowns = 0; }

/* The rest of the line whose first word is `key`. */
static int line_of(const char *key, char *value, size_t size) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256];
    size_t length = strlen(key);
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file))
        if (!strncmp(line, key, length) && line[length] == ' ') {
            line[strcspn(line, "\n")] = 0;
            snprintf(value, size, "%s", line + length + 1);
            found = 1;
        }
    if (file) fclose(file);
    return found;
}

static int text_of(Device device, const char *key, char *value, size_t size) {
    char own[128];
    snprintf(own, sizeof own, "%d.%s", device ? *device : 0, key);
    return (device && line_of(own, value, size)) || line_of(key, value, size);
}

static int number_of(Device device, const char *key, ull *value) {
    char text[128];
    if (!text_of(device, key, text, sizeof text)) return 0;
    *value = strtoull(text, NULL, 0);
    return 1;
}

/* What stands before any answer: the library is open, and the test wants no error of this function. */
static uint before(Device device, const char *function) {
    char key[128];
    ull code = SUCCESS;
    snprintf(key, sizeof key, "error.%s", function);
    if (!opened) return UNINITIALIZED;
    number_of(device, key, &code);
    return (uint)code;
}

static uint told_ull(Device device, const char *function, const char *key, ull *value) {
    uint result = before(device, function);
    if (result != SUCCESS) return result;
    return number_of(device, key, value) ? SUCCESS : NOT_SUPPORTED;
}

static uint told_uint(Device device, const char *function, const char *key, uint *value) {
    ull wide = 0;
    uint result = told_ull(device, function, key, &wide);
    if (result == SUCCESS) *value = (uint)wide;
    return result;
}

static uint told_text(Device device, const char *function, const char *key, char *value, uint size) {
    uint result = before(device, function);
    if (result != SUCCESS) return result;
    return text_of(device, key, value, size) ? SUCCESS : NOT_SUPPORTED;
}

uint nvmlInitWithFlags(uint flags) {
    ull code = SUCCESS;
    (void)flags;
    number_of(NULL, "error.nvmlInitWithFlags", &code);
    if (code == SUCCESS) opened++, inits++;
    return (uint)code;
}

uint nvmlShutdown(void) {
    uint result = before(NULL, "nvmlShutdown");
    if (opened) opened--;
    shutdowns++;
    return result;
}

const char *nvmlErrorString(uint result) {
    static char text[64];
    snprintf(text, sizeof text, "error %u of the fake", result);
    return text;
}

uint nvmlDeviceGetCount_v2(uint *count) { return told_uint(NULL, "nvmlDeviceGetCount_v2", "count", count); }

uint nvmlDeviceGetHandleByIndex_v2(uint index, Device *device) {
    if (index >= sizeof indices / sizeof *indices) return INVALID_ARGUMENT;
    *device = indices + index;
    return before(*device, "nvmlDeviceGetHandleByIndex_v2");
}

uint nvmlDeviceGetPciInfo_v3(Device device, Pci *pci) {
    ull ids = 0;
    memset(pci, 0, sizeof *pci);
    number_of(device, "pci_ids", &ids);
    pci->ids = (uint)ids;
    return told_text(device, "nvmlDeviceGetPciInfo_v3", "bus_id", pci->bus_id, sizeof pci->bus_id);
}

#define TEXT(function, key) \
    uint function(Device device, char *value, uint size) { return told_text(device, #function, key, value, size); }
TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")

uint nvmlSystemGetDriverVersion(char *value, uint size) {
    return told_text(NULL, "nvmlSystemGetDriverVersion", "driver", value, size);
}

#define UINT(function, key) \
    uint function(Device device, uint *value) { return told_uint(device, #function, key, value); }
UINT(nvmlDeviceGetPowerUsage, "power")
UINT(nvmlDeviceGetEnforcedPowerLimit, "limit")
UINT(nvmlDeviceGetPowerManagementDefaultLimit, "limit_default")
UINT(nvmlDeviceGetArchitecture, "architecture")
UINT(nvmlDeviceGetC2cModeInfoV, "c2c")
UINT(nvmlDeviceGetCurrPcieLinkGeneration, "generation")
UINT(nvmlDeviceGetMaxPcieLinkGeneration, "generation_max")
UINT(nvmlDeviceGetCurrPcieLinkWidth, "width")
UINT(nvmlDeviceGetMaxPcieLinkWidth, "width_max")
UINT(nvmlDeviceGetPersistenceMode, "persistence")
UINT(nvmlDeviceGetPcieReplayCounter, "pcie_replay")

#define ULL(function, key) \
    uint function(Device device, ull *value) { return told_ull(device, #function, key, value); }
ULL(nvmlDeviceGetTotalEnergyConsumption, "energy")
ULL(nvmlDeviceGetCurrentClocksEventReasons, "reasons")
ULL(nvmlDeviceGetCurrentClocksThrottleReasons, "old_reasons")

#define PAIR(function, first_key, second_key) \
    uint function(Device device, uint *first, uint *second) { \
        uint result = told_uint(device, #function, first_key, first); \
        return result == SUCCESS ? told_uint(device, #function, second_key, second) : result; \
    }
PAIR(nvmlDeviceGetPowerManagementLimitConstraints, "limit_least", "limit_most")
PAIR(nvmlDeviceGetMigMode, "mig", "mig")
PAIR(nvmlDeviceGetEccMode, "ecc", "ecc")

#define OF_KIND(function, key) \
    uint function(Device device, uint kind, uint *value) { \
        char name[32]; \
        snprintf(name, sizeof name, key ".%u", kind); \
        return told_uint(device, #function, name, value); \
    }
OF_KIND(nvmlDeviceGetTemperature, "temperature")
OF_KIND(nvmlDeviceGetClockInfo, "clock")

uint nvmlDeviceGetTemperatureV(Device device, uint *versioned) {
    return told_uint(device, "nvmlDeviceGetTemperatureV", "temperature_v", versioned + 2);
}

uint nvmlDeviceGetUtilizationRates(Device device, Utilization *rates) {
    return told_uint(device, "nvmlDeviceGetUtilizationRates", "utilization", &rates->gpu);
}

uint nvmlDeviceGetMemoryInfo_v2(Device device, Memory2 *memory) {
    if (memory->version != (sizeof *memory | 2 << 24)) return VERSION_MISMATCH;
    uint result = told_ull(device, "nvmlDeviceGetMemoryInfo_v2", "memory_total", &memory->total);
    return result == SUCCESS ? told_ull(device, "nvmlDeviceGetMemoryInfo_v2", "memory_used", &memory->used) : result;
}

uint nvmlDeviceGetBAR1MemoryInfo(Device device, Bar1 *bar1) {
    return told_ull(device, "nvmlDeviceGetBAR1MemoryInfo", "bar1", &bar1->total);
}

uint nvmlDeviceGetViolationStatus(Device device, uint policy, Violation *times) {
    char key[32];
    snprintf(key, sizeof key, "violation.%u", policy);
    return told_ull(device, "nvmlDeviceGetViolationStatus", key, &times->violation);
}

uint nvmlDeviceGetTotalEccErrors(Device device, uint type, uint counter, ull *count) {
    char key[32];
    snprintf(key, sizeof key, "errors.%u.%u", type, counter);
    return told_ull(device, "nvmlDeviceGetTotalEccErrors", key, count);
}

/* Without room for all of them only their number is told, as nvml.h has it; of the binding's first call too. */
static uint tell_processes(Device device, const char *function, const char *key, uint *count, Process *processes) {
    char text[256], *rest = text, *end;
    uint room = *count, result = before(device, function);
    if (result != SUCCESS) return result;
    if (!text_of(device, key, text, sizeof text)) return NOT_SUPPORTED;
    *count = 0;
    for (ull pid = strtoull(rest, &end, 0); end != rest; rest = end, pid = strtoull(rest, &end, 0), ++*count)
        if (processes && *count < room) processes[*count] = (Process){(uint)pid, 1 << 20, ~0u, ~0u};
    return *count > room ? INSUFFICIENT_SIZE : SUCCESS;
}

#define PROCESSES(function, key) \
    uint function(Device device, uint *count, Process *processes) { \
        return tell_processes(device, #function, key, count, processes); \
    }
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, "processes")
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, "processes_v3")

static void tell_field(Device device, Field *field) {
    char key[64], value[64];
    ull number = 1;
    int length = snprintf(key, sizeof key, "field.%u", field->field);
    snprintf(key + length, sizeof key - length, ".type");
    number_of(device, key, &number);
    field->type = (uint)number;
    number = SUCCESS;
    snprintf(key + length, sizeof key - length, ".error");
    number_of(device, key, &number);
    field->result = (uint)number;
    key[length] = 0;
    if (field->scope) snprintf(key + length, sizeof key - length, ".%u", field->scope);
    if (!text_of(device, key, value, sizeof value)) {
        if (field->result == SUCCESS) field->result = NOT_SUPPORTED;
    } else if (field->type == 0)
        field->value.d = strtod(value, NULL);
    else
        field->value.ull_ = strtoull(value, NULL, 0);
}

uint nvmlDeviceGetFieldValues(Device device, int count, Field *fields) {
    for (int i = 0; i < count; i++) tell_field(device, fields + i);
    return before(device, "nvmlDeviceGetFieldValues");
}
