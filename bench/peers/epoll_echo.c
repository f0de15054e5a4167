// A TCP echo server on epoll, as fast as its shape allows: what the package's epoll backend is measured against. One receive at a time a
// connection, edge-triggered, registered once, so that a message costs one recv and one send and nothing of epoll_ctl; a batch of events costs one
// epoll_wait. A recv that fills less than the buffer has found the socket empty (epoll(7), question 9).
//
// epoll_echo [--host ADDRESS] [--port N] [--buffer BYTES]
// Prints `listening on HOST:PORT`; ends with exit 0 on SIGTERM and SIGINT.

#define _GNU_SOURCE
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
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 512 };

struct connection {
	int fd;
	uint32_t sent; // bytes of `received` that have gone out
	uint32_t received;
	char buffer[];
};

static int epoll_fd;
static uint32_t buffer_bytes = 4096;

static void die(const char *what, int error)
{
	fprintf(stderr, "epoll_echo: %s: %s\n", what, strerror(error));
	exit(1);
}

static void watch(int fd, uint32_t events, void *data)
{
	struct epoll_event event = {.events = events, .data.ptr = data};
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		die("epoll_ctl", errno);
}

// Until the socket has nothing more to give or takes no more. False: the connection is over.
static bool serve(struct connection *connection)
{
	for (;;) {
		while (connection->sent < connection->received) {
			ssize_t sent = send(connection->fd, connection->buffer + connection->sent,
					    connection->received - connection->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
			if (sent < 0)
				return errno == EAGAIN;
			connection->sent += (uint32_t)sent;
		}
		ssize_t received = recv(connection->fd, connection->buffer, buffer_bytes, MSG_DONTWAIT);
		if (received < 0)
			return errno == EAGAIN;
		if (received == 0)
			return false;
		connection->received = (uint32_t)received;
		connection->sent = 0;
		if (connection->received == buffer_bytes)
			continue;
		ssize_t sent =
			send(connection->fd, connection->buffer, connection->received, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0)
			return errno == EAGAIN;
		connection->sent = (uint32_t)sent;
		return true;
	}
}

static void accept_all(int listener)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno == EAGAIN || errno == EMFILE)
				return;
			if (errno == ECONNABORTED || errno == EINTR)
				continue;
			die("accept4", errno);
		}
		struct connection *connection = malloc(sizeof *connection + buffer_bytes);
		if (!connection)
			die("malloc", ENOMEM);
		connection->fd = fd;
		connection->sent = connection->received = 0;
		watch(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, connection);
	}
}

static int listen_on(const char *host, int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
		die(host, EINVAL);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
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

int main(int argc, char **argv)
{
	const char *host = "127.0.0.1";
	int port = 0;
	static const struct option options[] = {{"host", required_argument, NULL, 'h'},
						{"port", required_argument, NULL, 'p'},
						{"buffer", required_argument, NULL, 'b'},
						{0}};
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (option) {
		case 'h': host = optarg; break;
		case 'p': port = atoi(optarg); break;
		case 'b': buffer_bytes = (uint32_t)atoi(optarg); break;
		default: return 2;
		}
	}

	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);

	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	if (signal_fd < 0)
		die("signalfd", errno);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		die("epoll_create1", errno);

	static struct connection the_listener, the_signals; // only their addresses are used
	int listener = listen_on(host, port);
	watch(listener, EPOLLIN | EPOLLET, &the_listener);
	watch(signal_fd, EPOLLIN, &the_signals);

	for (;;) {
		struct epoll_event events[EVENTS_MAX];
		int count = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
		if (count < 0 && errno != EINTR)
			die("epoll_wait", errno);
		for (int i = 0; i < count; i++) {
			struct connection *connection = events[i].data.ptr;
			if (connection == &the_signals)
				return 0;
			if (connection == &the_listener) {
				accept_all(listener);
			} else if (!serve(connection) || (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) {
				close(connection->fd);
				free(connection);
			}
		}
	}
}
