// The least a test needs: CHECK(condition) counts failures, and main() returns Failures().
#ifndef TESTING_CHECK_H_
#define TESTING_CHECK_H_

#include <cstdio>

namespace testing {

inline int& Failures() {
  static int failures = 0;
  return failures;
}

inline void Check(bool holds, const char* text, const char* file, int line) {
  if (holds) return;
  std::fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, text);
  ++Failures();
}

}  // namespace testing

#define CHECK(condition) \
  ::testing::Check(static_cast<bool>(condition), #condition, __FILE__, __LINE__)

#endif  // TESTING_CHECK_H_
