// lib/recorder/credentials: /proc/PID/task/TID/status.
#include "lib/recorder/credentials.h"
#include "tests/fuzz/fuzz_target.h"

namespace heapflare::fuzz {
namespace {

std::string Format(const recorder::Credentials& credentials) {
  std::string text = "Name:\tserver\nUid:";
  const auto four = [&text](const uint32_t(&ids)[3]) {
    for (const uint32_t id : ids) text += "\t" + std::to_string(id);
    text += "\t" + std::to_string(ids[1]) + "\n";
  };
  four(credentials.user);
  text += "Gid:";
  four(credentials.group);
  text += "Groups:\t";
  for (int i = 0; i < credentials.group_count; ++i) {
    text += std::to_string(credentials.groups[i]) + " ";
  }
  char sets[128];
  snprintf(sets, sizeof(sets), "\nCapInh:\t%016lx\nCapPrm:\t%016lx\nCapEff:\t%016lx\n",
           credentials.inheritable, credentials.permitted, credentials.effective);
  return text + sets;
}

}  // namespace

void FuzzOne(std::string_view bytes) {
  const Alone text(bytes);
  recorder::Credentials credentials = {};
  if (!recorder::ParseCredentials(text.view(), &credentials)) return;
  Require(
      credentials.group_count >= 0 && credentials.group_count <= recorder::Credentials::kMaxGroups,
      "no more groups than there is room for");
  recorder::Credentials again = {};
  Require(recorder::ParseCredentials(Format(credentials), &again), "the kernel's form is read");
  Require(again == credentials, "and means the same");
}

}  // namespace heapflare::fuzz
