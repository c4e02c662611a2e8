// A disk of bounded size for programs that are started with this library in LD_PRELOAD.
//
// The environment's DISK names a file that all processes map: see struct Disk. DISK_FOLDERS names three folders, divided
// by colons. What programs write below each is counted; past its room a write waits (where the disk stops) or fails as
// on a full disk. Pipes and other folders are as ever.

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio_ext.h>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <vector>

namespace {

constexpr int kFolders = 3;

struct Disk {
  long written[kFolders];  // bytes so far, of all processes
  long room[kFolders];     // bytes before the fault
  long stops;              // 1: the first write past the room waits until `released`, and no write fails
  long stopped;            // set by the write that waits
  long released;           // set by the test
};

Disk* disk() {
  static Disk* const mapped = [] {
    const char* path = std::getenv("DISK");
    const int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return static_cast<Disk*>(nullptr);
    void* place = mmap(nullptr, sizeof(Disk), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return place == MAP_FAILED ? nullptr : static_cast<Disk*>(place);
  }();
  return mapped;
}

const std::vector<std::string>& folders() {
  static const auto& names = *new std::vector<std::string>([] {  // never destroyed: streams are closed after main
    std::vector<std::string> found;
    const std::string all = std::getenv("DISK_FOLDERS") ? std::getenv("DISK_FOLDERS") : "";
    for (size_t at = 0; at < all.size() && found.size() < kFolders;) {
      const size_t end = std::min(all.find(':', at), all.size());
      found.push_back(all.substr(at, end - at) + "/");
      at = end + 1;
    }
    return found;
  }());
  return names;
}

// The number of the folder that an open file lies in, or -1.
int folder_of(int file) {
  if (!disk()) return -1;
  char link[64], path[PATH_MAX];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  const ssize_t size = readlink(link, path, sizeof path);
  for (size_t number = 0; size > 0 && number < folders().size(); ++number) {
    const std::string& folder = folders()[number];
    if (size_t(size) > folder.size() && !std::memcmp(path, folder.data(), folder.size())) return int(number);
  }
  return -1;
}

// How many of `size` bytes may be written to a folder now.
size_t allowed(int folder, size_t size) {
  Disk& of = *disk();
  const long before = __atomic_fetch_add(&of.written[folder], long(size), __ATOMIC_SEQ_CST);
  const long room = of.room[folder] - before;
  if (room >= long(size)) return size;
  if (!of.stops) return room > 0 ? size_t(room) : 0;
  if (!__atomic_exchange_n(&of.stopped, 1, __ATOMIC_SEQ_CST))
    while (!__atomic_load_n(&of.released, __ATOMIC_SEQ_CST)) usleep(1000);
  return size;
}

ssize_t full() {
  errno = ENOSPC;
  return -1;
}

template <typename Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// A stream keeps bytes of its own: where the folder has no room for them, its file becomes one that is always full.
void account(FILE* stream) {
  if (!stream || !disk() || !__fwritable(stream) || !__fbufsize(stream)) return;
  const int file = fileno(stream), folder = folder_of(file);
  struct stat status;
  if (folder < 0 || fstat(file, &status)) return;
  const size_t size = size_t(status.st_size) + __fpending(stream);
  if (allowed(folder, size) == size) return;
  const int always_full = open("/dev/full", O_WRONLY | O_CLOEXEC);
  dup3(always_full, file, O_CLOEXEC);
  close(always_full);
}

}  // namespace

extern "C" {

ssize_t write(int file, const void* data, size_t size) {
  static auto* const whole = real<ssize_t(int, const void*, size_t)>("write");
  const int folder = folder_of(file);
  const size_t some = folder < 0 || !size ? size : allowed(folder, size);
  return size && !some ? full() : whole(file, data, some);
}

ssize_t pwrite64(int file, const void* data, size_t size, off64_t at) {
  static auto* const whole = real<ssize_t(int, const void*, size_t, off64_t)>("pwrite64");
  const int folder = folder_of(file);
  const size_t some = folder < 0 || !size ? size : allowed(folder, size);
  return size && !some ? full() : whole(file, data, some, at);
}

ssize_t pwrite(int file, const void* data, size_t size, off_t at) { return pwrite64(file, data, size, at); }

ssize_t writev(int file, const struct iovec* parts, int count) {
  static auto* const whole = real<ssize_t(int, const struct iovec*, int)>("writev");
  size_t size = 0;
  for (int part = 0; part < count; ++part) size += parts[part].iov_len;
  const int folder = folder_of(file);
  return folder >= 0 && size && allowed(folder, size) < size ? full() : whole(file, parts, count);
}

ssize_t sendfile64(int target, int source, off64_t* at, size_t size) {
  static auto* const whole = real<ssize_t(int, int, off64_t*, size_t)>("sendfile64");
  const int folder = folder_of(target);
  struct stat status;
  if (folder >= 0 && !fstat(source, &status)) {
    const off64_t left = status.st_size - (at ? *at : lseek(source, 0, SEEK_CUR));
    if (left > 0 && allowed(folder, size_t(left)) < size_t(left)) return full();
  }
  return whole(target, source, at, size);
}

ssize_t sendfile(int target, int source, off_t* at, size_t size) { return sendfile64(target, source, at, size); }

int fclose(FILE* stream) {
  static auto* const whole = real<int(FILE*)>("fclose");
  account(stream);
  return whole(stream);
}

}  // extern "C"
