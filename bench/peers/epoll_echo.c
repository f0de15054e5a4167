// A TCP echo server on epoll, as fast as its shape allows: what the package's epoll backend is measured against. One receive at a time a
// connection, edge-triggered, registered once, so that a message costs one recv and one send and nothing of epoll_ctl; a batch of events costs one
// epoll_wait. A recv that fills less than the buffer has found the socket empty (epoll(7), question 9).
//
// epoll_echo [--host ADDRESS] [--port N] [--buffer BYTES]
// Prints `listening on HOST:PORT`; ends with exit 0 on SIGTERM and SIGINT.

#define _GNU_SOURCE
#include <sys/epoll.h>

#define NAME "epoll_echo"
#include "echo_server.h"

enum { EVENTS_MAX = 512 };

struct connection {
	int fd;
	uint32_t sent; // bytes of `received` that have gone out
	uint32_t received;
	char buffer[];
};

static int epoll_fd;

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

int main(int argc, char **argv)
{
	struct echo_options options = read_options(argc, argv);
	raise_file_limit();
	int signal_fd = end_signals();
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		die("epoll_create1", errno);

	static struct connection the_listener, the_signals; // only their addresses are used
	int listener = listen_on(options.host, options.port, SOCK_NONBLOCK);
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
