// Two shards, each of which says that it knows of sharding and finds its own index.
#include <cstdlib>
#include <fstream>
#include <string>

#include "testing/check.h"

int main() {
  const char* status_file = std::getenv("TEST_SHARD_STATUS_FILE");
  const char* index = std::getenv("TEST_SHARD_INDEX");
  const char* total = std::getenv("TEST_TOTAL_SHARDS");
  CHECK(status_file != nullptr);
  CHECK(index != nullptr && (std::string(index) == "0" || std::string(index) == "1"));
  CHECK(total != nullptr && std::string(total) == "2");
  if (status_file != nullptr) std::ofstream(status_file) << "sharded";
  return testing::Failures();
}
