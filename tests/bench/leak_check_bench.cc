// An allocation-heavy program: builds and tears down maps of vectors of strings, and loses nothing.
//   leak_check_bench [ROUNDS]
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? atoi(argv[1]) : 400;
  size_t characters = 0;
  for (int round = 0; round < rounds; ++round) {
    std::map<std::string, std::vector<std::string>> words;
    for (int i = 0; i < 2000; ++i) {
      std::vector<std::string>& list = words["key number " + std::to_string(i * 7919 % 2000)];
      for (int k = 0; k < 10; ++k)
        list.push_back("a word that is no short string " + std::to_string(k));
    }
    for (const auto& [key, list] : words) {
      for (const std::string& word : list) characters += word.size() + key.size();
    }
  }
  printf("%zu\n", characters);
}
