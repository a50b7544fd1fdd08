// What Bazel's Test Encyclopedia promises a test about the place it runs in.
#include <arpa/inet.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "testing/check.h"

namespace {

bool IsWritable(const std::string& directory) {
  const std::string path = directory + "/probe_of_environment_test";
  std::ofstream(path) << "written";
  std::string word;
  std::ifstream(path) >> word;
  return unlink(path.c_str()) == 0 && word == "written";
}

void CheckDirectories() {
  const char* test_tmpdir = std::getenv("TEST_TMPDIR");
  CHECK(test_tmpdir != nullptr);
  CHECK(test_tmpdir != nullptr && IsWritable(test_tmpdir));
  CHECK(IsWritable("/tmp"));
  CHECK(IsWritable("/var/tmp"));
  const char* home = std::getenv("HOME");
  CHECK(home == nullptr || access(home, F_OK) == 0);
  CHECK(access("/proc/self/status", R_OK) == 0);
  CHECK(access("/home", F_OK) != 0 || !IsWritable("/home"));
}

void CheckUser() {
  CHECK(getuid() != 0);
  CHECK(getuid() == geteuid());
  CHECK(getpwuid(getuid()) != nullptr);
  CHECK(getgrgid(getgid()) != nullptr);
  CHECK(getpwnam("root") != nullptr);
  CHECK(getpwnam("nobody") != nullptr);
}

void CheckNames() {
  char name[256] = {};
  CHECK(gethostname(name, sizeof(name) - 1) == 0);
  for (const char* host : {"localhost", static_cast<const char*>(name)}) {
    addrinfo* found = nullptr;
    CHECK(getaddrinfo(host, nullptr, nullptr, &found) == 0);
    if (found != nullptr) freeaddrinfo(found);
  }
}

void CheckLoopback() {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(bind(listener, reinterpret_cast<sockaddr*>(&address), length) == 0);
  CHECK(listen(listener, 1) == 0);
  CHECK(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect(client, reinterpret_cast<sockaddr*>(&address), length) == 0);
  CHECK(write(client, "ping", 4) == 4);
  const int server = accept(listener, nullptr, nullptr);
  char received[4] = {};
  CHECK(read(server, received, 4) == 4 && std::memcmp(received, "ping", 4) == 0);
  close(server);
  close(client);
  close(listener);
}

void CheckUnixSocketInTmp() {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, "/tmp/environment_test.socket");
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  close(listener);
  unlink(address.sun_path);
}

}  // namespace

int main() {
  CheckDirectories();
  CheckUser();
  CheckNames();
  CheckLoopback();
  CheckUnixSocketInTmp();
  return testing::Failures();
}
