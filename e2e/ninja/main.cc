#include <iostream>

#include "text.h"

int main(int argc, char** argv) {
  if (argc != 2 || !IsKnown("quince") || IsKnown("plum")) return 1;
  std::cout << Shout("lines: ") << CountLines(argv[1]) << std::endl;
}
