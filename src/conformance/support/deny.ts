// Starts a child process to which the kernel really refuses system calls, as a container's seccomp profile does. The launcher is a
// C program of one page, compiled when a case asks for it: the package ships no binary for its tests, and where there is no C
// compiler the case is `unable`.

import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import type { Context } from '../types.js';

/** The three calls that io_uring consists of. Their numbers are the same on every architecture (they came after the unification). */
export const systemCalls = { io_uring_setup: 425, io_uring_enter: 426, io_uring_register: 427 } as const;

/** One refusal. With `argument`, only calls are refused whose argument is equal to, or greater than, a value. */
export interface Denial {
  readonly call: keyof typeof systemCalls;
  readonly error: 'EPERM' | 'ENOSYS' | 'ENOMEM';
  readonly argument?: { readonly index: number; readonly equals: number } | { readonly index: number; readonly above: number };
}

// Classic BPF, one block a rule: compare the number, then (low halves: every argument here is 32 bits) the argument, answer with
// the errno. The filter doesn't look at the architecture: it protects nothing, it only refuses.
const source = `
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define RULES_MAX 16

static struct sock_filter program[RULES_MAX * 5 + 1];
static unsigned short length;

static void add(unsigned short code, unsigned char yes, unsigned char no, unsigned int k) {
  program[length++] = (struct sock_filter){code, yes, no, k};
}

/* A rule: CALL ERRNO CONDITION INDEX VALUE, the condition one of any, equals, above. */
int main(int argc, char **argv) {
  int at = 1;
  for (; at + 5 < argc && strcmp(argv[at], "--") != 0 && length < RULES_MAX * 5; at += 5) {
    unsigned int call = (unsigned int)atoi(argv[at]);
    unsigned int answer = SECCOMP_RET_ERRNO | (unsigned int)atoi(argv[at + 1]);
    const char *condition = argv[at + 2];
    unsigned int index = (unsigned int)atoi(argv[at + 3]);
    unsigned int value = (unsigned int)strtoul(argv[at + 4], NULL, 10);
    int any = strcmp(condition, "any") == 0;
    add(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
    add(BPF_JMP | BPF_JEQ | BPF_K, 0, any ? 1 : 3, call);
    if (!any) {
      add(BPF_LD | BPF_W | BPF_ABS, 0, 0, (unsigned int)(offsetof(struct seccomp_data, args) + 8 * index));
      add(BPF_JMP | (strcmp(condition, "above") == 0 ? BPF_JGT : BPF_JEQ) | BPF_K, 0, 1, value);
    }
    add(BPF_RET | BPF_K, 0, 0, answer);
  }
  add(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
  if (at + 1 >= argc || strcmp(argv[at], "--") != 0) {
    fprintf(stderr, "deny: no command\\n");
    return 125;
  }
  struct sock_fprog filter = {length, program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
    perror("deny: seccomp");
    return 126;
  }
  execvp(argv[at + 1], argv + at + 1);
  perror("deny: exec");
  return 127;
}
`;

/** The beginning of a command line (ChildOptions.wrap) under which these calls are refused. */
export function deny(t: Context, denials: readonly Denial[]): string[] {
  const folder = t.tempDir();
  const file = path.join(folder, 'deny.c');
  const program = path.join(folder, 'deny');
  t.doing('compiling the launcher that denies system calls');
  fs.writeFileSync(file, source);
  const compiled = spawnSync('cc', ['-O1', '-Wall', '-o', program, file], { encoding: 'utf8', timeout: 20_000 });
  if (compiled.error !== undefined) t.unable(`a C compiler is needed to deny system calls: ${compiled.error.message}`);
  if (compiled.status !== 0)
    t.unable(`the launcher that denies system calls doesn't compile here: ${compiled.stderr.slice(-400)}`);
  const tried = spawnSync(program, ['--', 'true'], { encoding: 'utf8', timeout: 5000 });
  if (tried.status !== 0) t.unable(`seccomp filters can't be set here: ${tried.stderr.slice(-200)}`);
  const rules = denials.flatMap(({ call, error, argument }) => {
    const begin = [String(systemCalls[call]), String(os.constants.errno[error])];
    if (argument === undefined) return [...begin, 'any', '0', '0'];
    const condition =
      'equals' in argument ? ['equals', argument.index, argument.equals] : ['above', argument.index, argument.above];
    return [...begin, ...condition.map(String)];
  });
  return [program, ...rules, '--'];
}
