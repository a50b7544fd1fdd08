#include <greet.h>

#include <iostream>

int main() { std::cout << greet() << "\n"; }
