/* Preloaded into the processes of a test: while the file $THREAD_SHIM is there, no thread can be had.
 * Knows no program. Used by starved.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*),
                   void* argument) {
  static int (*real)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  if (real == NULL) *(void**)&real = dlsym(RTLD_NEXT, "pthread_create");
  const char* file = getenv("THREAD_SHIM");
  if (file != NULL && access(file, F_OK) == 0) return EAGAIN;
  return real(thread, attributes, run, argument);
}
