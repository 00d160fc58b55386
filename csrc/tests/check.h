// A test is a plain program: every failed CHECK prints where it is, and main returns failures().
#pragma once

#include <cstdio>

namespace omni::test {

inline int& failures() {
  static int count = 0;
  return count;
}

}  // namespace omni::test

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      ++omni::test::failures();                                                    \
    }                                                                              \
  } while (0)

#define CHECK_THROWS(expression, exception) \
  do {                                      \
    bool thrown = false;                    \
    try {                                   \
      (void)(expression);                   \
    } catch (const exception&) {            \
      thrown = true;                        \
    }                                       \
    CHECK(thrown && #expression);           \
  } while (0)
