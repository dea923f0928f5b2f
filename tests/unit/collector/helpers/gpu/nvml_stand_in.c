/* A stand-in for libnvidia-ml.so.1: enough of nvml.h 13 for the real nvidia-ml-py to drive the nvml backend.
 *
 * Two boards; board 1 is in MIG mode with two slices when FAKE_NVML_MIG is set. Faults are injected by environment
 * variables, read at every call, so that a test changes them while the backend runs:
 *   FAKE_NVML_FAIL      "function=code,function=code": this function returns this nvmlReturn_t ("*@1=15": any call on board 1)
 *   FAKE_NVML_FIELD     "id=code,…": this field's own nvmlReturn
 *   FAKE_NVML_HANG      a function that never returns
 *   FAKE_NVML_SENTINEL  set: values that mean "not available" everywhere
 *   FAKE_NVML_COUNT     boards
 *   FAKE_NVML_ENERGY    energy of board 0 in mJ
 *   FAKE_NVML_SLICES    MIG slices
 *   FAKE_NVML_PIDS      pids on board 0 / on each slice, comma separated
 *   FAKE_NVML_OLD       set: an old library: no MemoryInfo_v2, no TemperatureV
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int ret_t;
typedef struct device { int board; int slice; } *device_t;
static struct device devices[8][9];

static const char *env(const char *name) { const char *v = getenv(name); return v && *v ? v : NULL; }
static unsigned env_number(const char *name, unsigned fallback) { const char *v = env(name); return v ? (unsigned)strtoul(v, NULL, 10) : fallback; }

static int listed(const char *list, const char *key) {
    size_t n = strlen(key);
    for (const char *p = list; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, key, n) && p[n] == '=') return atoi(p + n + 1);
    return 0;
}

static long called[512];
static ret_t fault(const char *function, device_t device) {
    const char *hang = env("FAKE_NVML_HANG");
    if (hang && !strcmp(hang, function)) for (;;) pause();
    const char *list = env("FAKE_NVML_FAIL");
    if (!list) return 0;
    char key[128];
    if (device) {
        snprintf(key, sizeof key, "*@%d", device->board);
        int code = listed(list, key);
        if (code) return code;
        snprintf(key, sizeof key, "%s@%d", function, device->board);
        code = listed(list, key);
        if (code) return code;
    }
    return listed(list, function);
}
#define GUARD(device) do { ret_t code = fault(__func__, device); if (code) return code; } while (0)

unsigned fake_calls(unsigned field) { return (unsigned)called[field]; }

ret_t nvmlInitWithFlags(unsigned flags) {
    GUARD(NULL);
    (void)flags;
    for (int b = 0; b < 8; b++) for (int s = 0; s < 9; s++) devices[b][s] = (struct device){b, s - 1};
    return 0;
}
ret_t nvmlShutdown(void) { GUARD(NULL); return 0; }
const char *nvmlErrorString(ret_t code) { static char text[32]; snprintf(text, sizeof text, "code %d", code); return text; }
ret_t nvmlSystemGetDriverVersion(char *text, unsigned n) { GUARD(NULL); snprintf(text, n, "580.65.06"); return 0; }
ret_t nvmlDeviceGetCount_v2(unsigned *count) { GUARD(NULL); *count = env_number("FAKE_NVML_COUNT", 2); return 0; }
ret_t nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) {
    GUARD(&devices[index][0]);
    if (index >= env_number("FAKE_NVML_COUNT", 2)) return 2;
    *device = &devices[index][0];
    return 0;
}
ret_t nvmlDeviceGetUUID(device_t d, char *text, unsigned n) {
    GUARD(d);
    if (d->slice < 0) snprintf(text, n, "GPU-00000000-0000-0000-0000-00000000000%d", d->board);
    else snprintf(text, n, "MIG-00000000-0000-0000-0000-0000000000%d%d", d->board, d->slice);
    return 0;
}
ret_t nvmlDeviceGetName(device_t d, char *text, unsigned n) {
    GUARD(d);
    snprintf(text, n, d->slice < 0 ? "NVIDIA Stand-in" : "NVIDIA Stand-in MIG 1g.10gb");
    return 0;
}
ret_t nvmlDeviceGetSerial(device_t d, char *text, unsigned n) { GUARD(d); snprintf(text, n, "SN%d", d->board); return 0; }
static int is_mig(device_t d) { return env("FAKE_NVML_MIG") && d->board == 1; }
ret_t nvmlDeviceGetMigMode(device_t d, unsigned *current, unsigned *pending) {
    GUARD(d);
    if (d->board == 0) return 3;
    *current = *pending = is_mig(d);
    return 0;
}
ret_t nvmlDeviceGetMaxMigDeviceCount(device_t d, unsigned *count) { GUARD(d); *count = 7; return 0; }
ret_t nvmlDeviceGetMigDeviceHandleByIndex(device_t d, unsigned index, device_t *slice) {
    GUARD(d);
    if (index >= env_number("FAKE_NVML_SLICES", 2)) return 6;
    *slice = &devices[d->board][index + 1];
    return 0;
}

typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
ret_t nvmlDeviceGetMemoryInfo(device_t d, memory_v1 *m) {
    GUARD(d);
    m->total = 80ull << 30; m->used = 3ull << 30; m->free = m->total - m->used;
    return 0;
}
ret_t nvmlDeviceGetMemoryInfo_v2(device_t d, memory_v2 *m) {
    GUARD(d);
    if (env("FAKE_NVML_OLD")) return 13;
    m->total = (d->slice < 0 ? 80ull : 10ull) << 30;
    m->used = (d->slice < 0 ? 2ull : 1ull) << 30;
    m->reserved = 1ull << 30;
    if (env("FAKE_NVML_SENTINEL")) m->used = ~0ull;
    return 0;
}
typedef struct { unsigned gpu, memory; } utilization;
ret_t nvmlDeviceGetUtilizationRates(device_t d, utilization *u) {
    GUARD(d);
    if (is_mig(d)) return 3;
    u->gpu = env("FAKE_NVML_SENTINEL") ? 4294967295u : 40; u->memory = 99;
    return 0;
}
ret_t nvmlDeviceGetPowerUsage(device_t d, unsigned *mw) { GUARD(d); *mw = 150000; return 0; }
ret_t nvmlDeviceGetTotalEnergyConsumption(device_t d, unsigned long long *mj) { GUARD(d); *mj = 7000; return 0; }
typedef struct { unsigned version; unsigned sensor; int temperature; } temperature_v1;
ret_t nvmlDeviceGetTemperatureV(device_t d, temperature_v1 *t) {
    GUARD(d);
    if (env("FAKE_NVML_OLD")) return 13;
    t->temperature = 61;
    return 0;
}
ret_t nvmlDeviceGetTemperature(device_t d, unsigned sensor, unsigned *c) { GUARD(d); (void)sensor; *c = 62; return 0; }
ret_t nvmlDeviceGetEncoderUtilization(device_t d, unsigned *u, unsigned *period) { GUARD(d); *u = 5; *period = 167000; return 0; }
ret_t nvmlDeviceGetDecoderUtilization(device_t d, unsigned *u, unsigned *period) { GUARD(d); *u = 6; *period = 167000; return 0; }
ret_t nvmlDeviceGetTotalEccErrors(device_t d, unsigned type, unsigned counter, unsigned long long *n) {
    GUARD(d);
    (void)counter;
    *n = type == 0 ? 3 : 1;
    return 0;
}
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process;
ret_t nvmlDeviceGetComputeRunningProcesses_v3(device_t d, unsigned *count, process *p) {
    GUARD(d);
    const char *list = env("FAKE_NVML_PIDS");
    unsigned n = 0, room = *count;
    for (const char *s = (d->board == 0 || d->slice >= 0) ? list : NULL; s; s = strchr(s, ',') ? strchr(s, ',') + 1 : NULL, n++)
        if (p && n < room) p[n] = (process){(unsigned)atoi(s), ~0ull, 0, 0};
    *count = n;
    return n > room ? 7 : 0;
}

typedef union { double d; unsigned ui; unsigned long ul; unsigned long long ull; long long sll; int si; unsigned short us; } value_t;
typedef struct { unsigned field, scope; long long timestamp, latency; int type; ret_t ret; value_t value; } field_value;
ret_t nvmlDeviceGetFieldValues(device_t d, int count, field_value *values) {
    GUARD(d);
    const char *faults = env("FAKE_NVML_FIELD");
    int blank = env("FAKE_NVML_SENTINEL") != NULL;
    for (int i = 0; i < count; i++) {
        field_value *v = &values[i];
        char key[16];
        snprintf(key, sizeof key, "%u", v->field);
        if (v->field < 512) called[v->field]++;
        v->ret = faults ? listed(faults, key) : 0;
        v->type = 3;
        switch (v->field) {
        case 83: v->value.ull = blank ? 9223372036854775794ull : env_number("FAKE_NVML_ENERGY", 5000); break;
        case 185: v->type = 1; v->value.ui = blank ? 2147483632u : 200000; break;
        case 186: v->type = 1; v->value.ui = blank ? 4294967295u : 250000; break;
        case 74: case 75: case 269: case 270: case 271: v->value.ull = blank ? ~0ull : v->field * 1000000000ull; break;
        case 197: case 198: v->value.ull = blank ? ~0ull : v->field * 1000ull; break;
        default: v->ret = 2;
        }
    }
    return 0;
}
