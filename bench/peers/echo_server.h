// What the echo servers of this folder have in common: their options, the listener, the signals that end them. Each includes it once, behind
// a definition of NAME.
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

static uint32_t buffer_bytes = 4096;

static void die(const char *what, int error)
{
	fprintf(stderr, NAME ": %s: %s\n", what, strerror(error));
	exit(1);
}

struct echo_options {
	const char *host;
	int port;
	bool poll_first;
};

// Ends the program with 2 where it doesn't know an option.
static struct echo_options read_options(int argc, char **argv)
{
	struct echo_options given = {.host = "127.0.0.1"};
	static const struct option options[] = {{"host", required_argument, NULL, 'h'},
						{"port", required_argument, NULL, 'p'},
						{"buffer", required_argument, NULL, 'b'},
						{"poll-first", no_argument, NULL, 'f'},
						{0}};
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (option) {
		case 'h': given.host = optarg; break;
		case 'p': given.port = atoi(optarg); break;
		case 'b': buffer_bytes = (uint32_t)atoi(optarg); break;
		case 'f': given.poll_first = true; break;
		default: exit(2);
		}
	}
	return given;
}

// As many connections as the system allows.
static void raise_file_limit(void)
{
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

// Readable when the program is to end.
static int end_signals(void)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	int fd = signalfd(-1, &signals, SFD_CLOEXEC);
	if (fd < 0)
		die("signalfd", errno);
	return fd;
}

// Says where, in a line. `flags`: of socket(2), beside SOCK_CLOEXEC.
static int listen_on(const char *host, int port, int flags)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
		die(host, EINVAL);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	if (fd < 0)
		die("socket", errno);
	int on = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		die("bind", errno);
	if (listen(fd, 4096) < 0)
		die("listen", errno);
	socklen_t length = sizeof address;
	if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		die("getsockname", errno);
	printf("listening on %s:%d\n", host, ntohs(address.sin_port));
	fflush(stdout);
	return fd;
}
