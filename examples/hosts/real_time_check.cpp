// SPDX-License-Identifier: MIT
#include "hosts/real_time_check.hpp"

#include <dlfcn.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>

namespace {

thread_local int sections = 0;
std::atomic<std::int64_t> allocations{0}, locks{0}, system_calls{0};
std::atomic<int> last_system_call{-1};

void count(std::atomic<std::int64_t>& what) {
  if (sections > 0) what.fetch_add(1, std::memory_order_relaxed);
}

/// The function of this name that the program would call, were it not for this file.
template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

void refuse(int, siginfo_t* info, void* context) {
  system_calls.fetch_add(1, std::memory_order_relaxed);
  last_system_call.store(info->si_syscall, std::memory_order_relaxed);
#if defined(__x86_64__)
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RAX] = -ENOSYS;
#elif defined(__aarch64__)
  static_cast<ucontext_t*>(context)->uc_mcontext.regs[0] = static_cast<unsigned long long>(-ENOSYS);
#endif
}

}  // namespace

// In the place of the C library's, whose own names begin with __libc.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);

void* malloc(std::size_t size) {
  count(allocations);
  return __libc_malloc(size);
}
void* calloc(std::size_t number, std::size_t size) {
  count(allocations);
  return __libc_calloc(number, size);
}
void* realloc(void* old, std::size_t size) {
  count(allocations);
  return __libc_realloc(old, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  count(allocations);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** to, std::size_t alignment, std::size_t size) {
  count(allocations);
  *to = __libc_memalign(alignment, size);
  return *to == nullptr ? ENOMEM : 0;
}
void free(void* old) {
  if (old != nullptr) count(allocations);
  __libc_free(old);
}

int pthread_mutex_lock(pthread_mutex_t* mutex) {
  static const auto lock = next<int(pthread_mutex_t*)>("pthread_mutex_lock");
  count(locks);
  return lock(mutex);
}
int pthread_rwlock_rdlock(pthread_rwlock_t* lock) {
  static const auto read = next<int(pthread_rwlock_t*)>("pthread_rwlock_rdlock");
  count(locks);
  return read(lock);
}
int pthread_rwlock_wrlock(pthread_rwlock_t* lock) {
  static const auto write = next<int(pthread_rwlock_t*)>("pthread_rwlock_wrlock");
  count(locks);
  return write(lock);
}
}

namespace real_time {

Violations violations() {
  return {allocations.load(), locks.load(), system_calls.load(), last_system_call.load()};
}

bool trap_system_calls() {
  struct sigaction action {};
  action.sa_sigaction = refuse;
  action.sa_flags = SA_SIGINFO;
  if (sigaction(SIGSYS, &action, nullptr) != 0) return false;
  // What ends a thread goes through, and what returns from the handler. So does what gets memory: who asks for it by
  // malloc() has been counted, and could not go on without.
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 8, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigprocmask, 7, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 6, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 5, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 4, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{sizeof(filter) / sizeof(filter[0]), filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

Section::Section() {
  ++sections;
}
Section::~Section() {
  --sections;
}

}  // namespace real_time
