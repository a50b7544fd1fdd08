#include "greet.h"

const char* greet() { return "hello from the library"; }
