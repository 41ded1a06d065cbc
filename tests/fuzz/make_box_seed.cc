// Makes a seed for box_fuzz of a box file: make_box_seed FILE.box > SEED. Parts of a large box that
// do not fit are left out. Small ones come of HEAPFLARE_BOX_SIZE=1MiB.
#include <fstream>
#include <iostream>
#include <iterator>

#include "tests/fuzz/box_patch.h"

namespace heapflare::fuzz {

void FuzzOne(std::string_view /*bytes*/) {}

}  // namespace heapflare::fuzz

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "make_box_seed FILE.box > SEED\n";
    return 2;
  }
  std::ifstream file(argv[1], std::ios::binary);
  const std::string box{std::istreambuf_iterator<char>(file), {}};
  heapflare::box::Reader reader;
  heapflare::base::Text<256> problem;
  if (!reader.Open(box.data(), box.size(), &problem)) {
    std::cerr << argv[1] << ": " << problem.c_str() << "\n";
    return 3;
  }
  // 0: as a change of the box without records; all that can be done with it is.
  std::cout << heapflare::fuzz::InputFor(heapflare::fuzz::Compact(box), 0xf0);
  return 0;
}
