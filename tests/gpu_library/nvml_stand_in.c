/* A stand-in for libnvidia-ml.so.1: as much of nvml.h 13 as the real nvidia-ml-py needs to drive the nvml backend.
 *
 * Settings define the machine: stand_in_set(name, value), else the environment variable STAND_IN_<name>, else a default.
 * All of them are read at every call, so a test can change the machine at any time. Lists are separated by commas.
 *   boards   the machine: boards separated by ';', each "uuid/name/GiB", in MIG mode "uuid/name/GiB/mig,uuid:GiB,,uuid:GiB":
 *            slices by their index, an empty one does not exist. "" stands for a machine without a GPU
 *   fail     "function=code": that function returns this nvmlReturn_t; "function@0", "function@1:0" only on that board or slice;
 *            "*@1=15": every function on board 1 and its slices
 *   field    "id=code": the nvmlReturn of this field; "*=code": that of every field
 *   type     "id=n": the nvmlValueType_t of this field
 *   hang     a function that does not return before this setting changes
 *   version  the version of the driver
 *   utilization encoder decoder temperature corrected uncorrected (as the driver has them), used (MiB), reserved (MiB),
 *   power power_average power_usage (mW), energy energy_total (mJ), throttle (ns), pcie (bytes): numbers, also "name@0", "name@1:0"
 *   pids     the pids of the processes that compute; also "pids@0", "pids@1:0"
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
typedef int ret_t;
typedef unsigned long long u64;
enum { BOARDS = 16, SLICES = 8, SETTINGS = 128, TEXT = 2048 };
typedef struct device { int board, slice; } *device_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { char name[64], value[TEXT]; } settings[SETTINGS];
static int setting_count;
static struct { char name[64]; unsigned count; } calls[SETTINGS];
static int call_count;
static unsigned field_calls[512];
static struct device devices[BOARDS][SLICES + 1];

/* ---- settings ---- */

EXPORT void stand_in_reset(void) {
    pthread_mutex_lock(&lock);
    setting_count = call_count = 0;
    memset(field_calls, 0, sizeof field_calls);
    pthread_mutex_unlock(&lock);
}

EXPORT int stand_in_set(const char *name, const char *value) {
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < setting_count && strcmp(settings[i].name, name)) i++;
    int fits = i < SETTINGS && strlen(name) < sizeof settings[i].name && strlen(value) < TEXT;
    if (fits) {
        strcpy(settings[i].name, name);
        strcpy(settings[i].value, value);
        if (i == setting_count) setting_count++;
    }
    pthread_mutex_unlock(&lock);
    return fits;
}

static int setting(const char *name, char out[TEXT]) {
    int found = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < setting_count && !found; i++)
        if (!strcmp(settings[i].name, name)) { strcpy(out, settings[i].value); found = 1; }
    pthread_mutex_unlock(&lock);
    if (!found) {
        char key[96];
        snprintf(key, sizeof key, "STAND_IN_%s", name);
        const char *value = getenv(key);
        if (value) { snprintf(out, TEXT, "%s", value); found = 1; }
    }
    return found;
}

static void place(device_t d, char out[16]) {
    if (d->slice < 0) snprintf(out, 16, "%d", d->board);
    else snprintf(out, 16, "%d:%d", d->board, d->slice);
}

/* The setting of this device, else that of all devices. */
static int setting_of(const char *name, device_t d, char out[TEXT]) {
    char key[96], where[16];
    place(d, where);
    snprintf(key, sizeof key, "%s@%s", name, where);
    return setting(key, out) || setting(name, out);
}

static u64 number(const char *name, device_t d, u64 fallback) {
    char text[TEXT];
    return setting_of(name, d, text) && *text ? strtoull(text, NULL, 10) : fallback;
}

/* The number after "key=" in a list; 0 if the key is not listed. */
static int listed(const char *list, const char *key) {
    size_t n = strlen(key);
    for (const char *p = list; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, key, n) && p[n] == '=') return atoi(p + n + 1);
    return 0;
}

/* ---- counting, failing, hanging ---- */

EXPORT unsigned stand_in_calls(const char *function) {
    unsigned found = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < call_count; i++)
        if (!strcmp(calls[i].name, function)) found = calls[i].count;
    pthread_mutex_unlock(&lock);
    return found;
}

EXPORT unsigned stand_in_field_calls(unsigned field) { return field < 512 ? field_calls[field] : 0; }

static void count(const char *function) {
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < call_count && strcmp(calls[i].name, function)) i++;
    if (i < SETTINGS) {
        if (i == call_count) { snprintf(calls[i].name, sizeof calls[i].name, "%s", function); calls[i].count = 0; call_count++; }
        calls[i].count++;
    }
    pthread_mutex_unlock(&lock);
}

static ret_t enter(const char *function, device_t d) {
    char text[TEXT], key[96], where[16];
    count(function);
    while (setting("hang", text) && !strcmp(text, function)) usleep(2000);
    if (!setting("fail", text)) return 0;
    if (d) {
        snprintf(key, sizeof key, "*@%d", d->board);
        int code = listed(text, key);
        if (code) return code;
        place(d, where);
        snprintf(key, sizeof key, "%s@%s", function, where);
        code = listed(text, key);
        if (code) return code;
    }
    return listed(text, function);
}
#define ENTER(device) do { ret_t code = enter(__func__, device); if (code) return code; } while (0)

/* ---- the machine ---- */

static const char *DEFAULT_BOARDS = "GPU-00000000-0000-0000-0000-000000000000/NVIDIA Stand-in/80;GPU-00000000-0000-0000-0000-000000000001/NVIDIA Stand-in/80";
struct part { int exists, is_mig; char uuid[96], name[96]; u64 gib; };

/* The n-th piece between separators: 1 and the piece, 0 if there are fewer. */
static int piece(const char *text, char separator, int n, char *out, size_t size) {
    for (; n > 0; n--) {
        text = strchr(text, separator);
        if (!text++) return 0;
    }
    const char *end = strchr(text, separator);
    size_t length = end ? (size_t)(end - text) : strlen(text);
    if (length >= size) length = size - 1;
    memcpy(out, text, length);
    out[length] = 0;
    return 1;
}

static unsigned board_count(void) {
    char text[TEXT];
    const char *boards = setting("boards", text) ? text : DEFAULT_BOARDS;
    unsigned n = *boards ? 1 : 0;
    for (const char *p = boards; *p; p++) n += *p == ';';
    return n < BOARDS ? n : BOARDS;
}

static struct part part_of(int board, int slice) {
    struct part part = {0};
    char text[TEXT], one[TEXT], mig[TEXT], item[128], gib[32];
    const char *boards = setting("boards", text) ? text : DEFAULT_BOARDS;
    if (!*boards || !piece(boards, ';', board, one, sizeof one)) return part;
    part.is_mig = piece(one, '/', 3, mig, sizeof mig) && !strncmp(mig, "mig", 3);
    piece(one, '/', 1, part.name, sizeof part.name);
    if (slice < 0) {
        piece(one, '/', 0, part.uuid, sizeof part.uuid);
        if (piece(one, '/', 2, gib, sizeof gib)) part.gib = strtoull(gib, NULL, 10);
    } else {
        if (!part.is_mig || !piece(mig, ',', slice + 1, item, sizeof item) || !*item) return part;
        piece(item, ':', 0, part.uuid, sizeof part.uuid);
        if (piece(item, ':', 1, gib, sizeof gib)) part.gib = strtoull(gib, NULL, 10);
        snprintf(part.name + strlen(part.name), sizeof part.name - strlen(part.name), " MIG %llug", part.gib);
    }
    part.exists = 1;
    return part;
}

/* The handle of a device that no longer exists is an invalid argument. */
#define PART(device) struct part part = part_of((device)->board, (device)->slice); if (!part.exists) return 2

EXPORT ret_t nvmlInitWithFlags(unsigned flags) {
    ENTER(NULL);
    (void)flags;
    for (int b = 0; b < BOARDS; b++)
        for (int s = 0; s <= SLICES; s++) devices[b][s] = (struct device){b, s - 1};
    return 0;
}
EXPORT ret_t nvmlShutdown(void) { ENTER(NULL); return 0; }
EXPORT const char *nvmlErrorString(ret_t code) {
    static __thread char text[32];
    snprintf(text, sizeof text, "code %d", code);
    return text;
}
EXPORT ret_t nvmlSystemGetDriverVersion(char *text, unsigned n) {
    char version[TEXT];
    ENTER(NULL);
    snprintf(text, n, "%s", setting("version", version) ? version : "580.65.06");
    return 0;
}
EXPORT ret_t nvmlDeviceGetCount_v2(unsigned *found) { ENTER(NULL); *found = board_count(); return 0; }
EXPORT ret_t nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) {
    if (index >= BOARDS) return 2;
    ENTER(&devices[index][0]);
    if (index >= board_count()) return 2;
    *device = &devices[index][0];
    return 0;
}
EXPORT ret_t nvmlDeviceGetUUID(device_t d, char *text, unsigned n) { ENTER(d); PART(d); snprintf(text, n, "%s", part.uuid); return 0; }
EXPORT ret_t nvmlDeviceGetName(device_t d, char *text, unsigned n) { ENTER(d); PART(d); snprintf(text, n, "%s", part.name); return 0; }
EXPORT ret_t nvmlDeviceGetSerial(device_t d, char *text, unsigned n) { ENTER(d); PART(d); snprintf(text, n, "SN%d", d->board); return 0; }
EXPORT ret_t nvmlDeviceGetMigMode(device_t d, unsigned *current, unsigned *pending) {
    ENTER(d);
    PART(d);
    if (d->board == 0 && !part.is_mig) return 3; /* board 0 does not support MIG, the others have it disabled */
    *current = *pending = (unsigned)part.is_mig;
    return 0;
}
EXPORT ret_t nvmlDeviceGetMaxMigDeviceCount(device_t d, unsigned *found) { ENTER(d); *found = SLICES - 1; return 0; }
EXPORT ret_t nvmlDeviceGetMigDeviceHandleByIndex(device_t d, unsigned index, device_t *slice) {
    ENTER(d);
    if (index >= SLICES) return 2;
    if (!part_of(d->board, (int)index).exists) return 6;
    *slice = &devices[d->board][index + 1];
    return 0;
}

/* ---- readings ---- */

typedef struct { u64 total, free, used; } memory_v1;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2;
EXPORT ret_t nvmlDeviceGetMemoryInfo(device_t d, memory_v1 *m) {
    ENTER(d);
    PART(d);
    m->total = part.gib << 30;
    m->used = (number("used", d, d->slice < 0 ? 2048 : 1024) + number("reserved", d, 1024)) << 20; /* the old call includes what the driver reserves */
    m->free = m->total - m->used;
    return 0;
}
EXPORT ret_t nvmlDeviceGetMemoryInfo_v2(device_t d, memory_v2 *m) {
    ENTER(d);
    PART(d);
    if (m->version != 0x02000028) return 25;
    u64 used = number("used", d, d->slice < 0 ? 2048 : 1024);
    m->total = part.gib << 30;
    m->used = used >= 1ull << 40 ? used : used << 20; /* a sentinel must not be shifted */
    m->reserved = number("reserved", d, 1024) << 20;
    m->free = m->total - m->used - m->reserved;
    return 0;
}
typedef struct { unsigned gpu, memory; } rates;
EXPORT ret_t nvmlDeviceGetUtilizationRates(device_t d, rates *u) {
    ENTER(d);
    PART(d);
    if (part.is_mig) return 3;
    u->gpu = (unsigned)number("utilization", d, 40);
    u->memory = 99; /* the utilisation of the memory controller: reveals code that takes it for memory in use */
    return 0;
}
EXPORT ret_t nvmlDeviceGetPowerUsage(device_t d, unsigned *mw) {
    ENTER(d);
    if (d->slice >= 0) return 3;
    *mw = (unsigned)number("power_usage", d, 150000);
    return 0;
}
EXPORT ret_t nvmlDeviceGetTotalEnergyConsumption(device_t d, u64 *mj) {
    ENTER(d);
    if (d->slice >= 0) return 3;
    *mj = number("energy_total", d, 7000);
    return 0;
}
typedef struct { unsigned version, sensor; int temperature; } temperature_v1;
EXPORT ret_t nvmlDeviceGetTemperatureV(device_t d, temperature_v1 *t) { ENTER(d); t->temperature = (int)number("temperature", d, 61); return 0; }
EXPORT ret_t nvmlDeviceGetTemperature(device_t d, unsigned sensor, unsigned *c) {
    ENTER(d);
    (void)sensor;
    *c = (unsigned)number("temperature", d, 62);
    return 0;
}
EXPORT ret_t nvmlDeviceGetEncoderUtilization(device_t d, unsigned *u, unsigned *period) {
    ENTER(d);
    PART(d);
    if (part.is_mig) return 3;
    *u = (unsigned)number("encoder", d, 5);
    *period = 167000;
    return 0;
}
EXPORT ret_t nvmlDeviceGetDecoderUtilization(device_t d, unsigned *u, unsigned *period) {
    ENTER(d);
    PART(d);
    if (part.is_mig) return 3;
    *u = (unsigned)number("decoder", d, 6);
    *period = 167000;
    return 0;
}
EXPORT ret_t nvmlDeviceGetTotalEccErrors(device_t d, unsigned type, unsigned counter, u64 *n) {
    ENTER(d);
    (void)counter;
    *n = type == 0 ? number("corrected", d, 3) : number("uncorrected", d, 1);
    return 0;
}
typedef struct { unsigned pid; u64 used; unsigned gi, ci; } process;
EXPORT ret_t nvmlDeviceGetComputeRunningProcesses_v3(device_t d, unsigned *found, process *p) {
    char list[TEXT] = "";
    ENTER(d);
    setting_of("pids", d, list);
    unsigned n = 0, room = *found;
    for (const char *s = *list ? list : NULL; s; s = strchr(s, ',') ? strchr(s, ',') + 1 : NULL, n++)
        if (p && n < room) p[n] = (process){(unsigned)strtoul(s, NULL, 10), ~0ull, 0, 0};
    *found = n;
    return n > room ? 7 : 0;
}

typedef union { double d; unsigned ui; unsigned long ul; u64 ull; long long sll; int si; unsigned short us; } value_t;
typedef struct { unsigned field, scope; long long timestamp, latency; int type; ret_t ret; value_t value; } field_value;
EXPORT ret_t nvmlDeviceGetFieldValues(device_t d, int count, field_value *values) {
    char faults[TEXT] = "", types[TEXT] = "", key[16];
    ENTER(d);
    setting("field", faults);
    setting("type", types);
    for (int i = 0; i < count; i++) {
        field_value *v = &values[i];
        if (v->field < 512) field_calls[v->field]++;
        v->ret = d->slice < 0 ? listed(faults, "*") : 3;
        v->type = 3;
        switch (v->field) {
        case 83: v->value.ull = number("energy", d, 5000); break;
        case 185: v->type = 1; v->value.ui = (unsigned)number("power_average", d, 200000); break;
        case 186: v->type = 1; v->value.ui = (unsigned)number("power", d, 250000); break;
        case 74: case 75: case 269: case 270: case 271: v->value.ull = number("throttle", d, v->field * 1000000000ull); break;
        case 197: case 198: v->value.ull = number("pcie", d, v->field * 1000ull); break;
        default: v->ret = 2;
        }
        snprintf(key, sizeof key, "%u", v->field);
        int fault = listed(faults, key), type = listed(types, key);
        if (fault) v->ret = fault;
        if (type) v->type = type;
    }
    return 0;
}
