#include "text/tokenizer.h"

#include "testing/check.h"
#include "text/normalizer.h"

int main() {
  CHECK(text::Normalize("It's") == "its");
  CHECK(text::Normalize("--") == "");
  CHECK(text::Tokenize("").empty());
  CHECK((text::Tokenize(" One, -- two! ") == std::vector<std::string>{"one", "two"}));
  return testing::Failures();
}
