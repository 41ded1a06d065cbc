// Runs a program under a seccomp filter: surroundings_seccomp RULE... -- PROGRAM ARGS...
//
//   errno:NUMBER[:ERRNO]     this system call fails (EPERM)
//   kill:NUMBER              this system call ends the process (SECCOMP_RET_KILL_PROCESS)
//   kill-flags:NUMBER:FLAGS  so does this one, unless its first argument equals FLAGS (hexadecimal)
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <vector>

int main(int argc, char** argv) {
  std::vector<sock_filter> filter = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
  };
  int at = 1;
  for (; at < argc && strcmp(argv[at], "--") != 0; ++at) {
    unsigned call = 0;
    unsigned error = EPERM;
    unsigned flags = 0;
    if (sscanf(argv[at], "errno:%u:%u", &call, &error) >= 1) {
      filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1));
      filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error));
    } else if (sscanf(argv[at], "kill:%u", &call) == 1) {
      filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1));
      filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
    } else if (sscanf(argv[at], "kill-flags:%u:%x", &call, &flags) == 2) {
      filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 4));
      filter.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[0])));
      filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, flags, 1, 0));
      filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
      filter.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
    } else {
      fprintf(stderr, "surroundings_seccomp: '%s' is not a rule\n", argv[at]);
      return 125;
    }
  }
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  if (at + 1 >= argc) {
    fprintf(stderr, "surroundings_seccomp: no program given\n");
    return 125;
  }
  const sock_fprog program = {static_cast<unsigned short>(filter.size()), filter.data()};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    perror("surroundings_seccomp: seccomp");
    return 125;
  }
  execvp(argv[at + 1], argv + at + 1);
  perror(argv[at + 1]);
  return 127;
}
