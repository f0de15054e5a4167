// uring_echo: the yardstick of the echo figures: a TCP echo server in C on liburing, one thread, one ring, at most one
// receive or one send in flight a connection, as examples/echo.mjs has it. It is meant to be as good as a careful
// engineer makes it without changing that shape: SINGLE_ISSUER | DEFER_TASKRUN, one io_uring_enter a batch that submits
// and waits, completions taken in one walk. What it leaves out, multishot receives with buffer rings, is another shape.
//
// uring_echo [--host ADDRESS] [--port N] [--buffer BYTES] [--poll-first]
// Prints `listening on HOST:PORT`; ends with exit 0 on SIGTERM and SIGINT.

#define _GNU_SOURCE
#include <liburing.h>

#define NAME "uring_echo"
#include "echo_server.h"

enum { OP_RECV = 0, OP_SEND = 1, OP_ACCEPT = 2, OP_SIGNAL = 3, OP_MASK = 3 };

// Submissions of one batch; a longer one is submitted in between. The CQ has room for every connection's completion.
enum { SQ_ENTRIES = 4096, CQ_ENTRIES = 32768 };

struct connection {
	struct connection *next_free;
	int fd;
	uint32_t sent; // bytes of `received` that have gone out
	uint32_t received;
	char buffer[];
};

static struct io_uring ring;
static struct connection *free_list;
static bool poll_first;

static struct io_uring_sqe *next_sqe(void)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	if (!sqe) {
		int result = io_uring_submit(&ring);
		if (result < 0)
			die("io_uring_submit", -result);
		sqe = io_uring_get_sqe(&ring);
	}
	return sqe;
}

static struct connection *new_connection(int fd)
{
	struct connection *connection = free_list;
	if (connection) {
		free_list = connection->next_free;
	} else {
		connection = malloc(sizeof *connection + buffer_bytes);
		if (!connection)
			die("malloc", ENOMEM);
	}
	connection->fd = fd;
	return connection;
}

static void end_connection(struct connection *connection)
{
	close(connection->fd);
	connection->next_free = free_list;
	free_list = connection;
}

static void arm_recv(struct connection *connection, bool maybe_readable)
{
	struct io_uring_sqe *sqe = next_sqe();
	io_uring_prep_recv(sqe, connection->fd, connection->buffer, buffer_bytes, 0);
	// Off unless asked for: skipping the try that mostly meets EAGAIN looks like a gain, and none could be measured.
	if (!maybe_readable && poll_first)
		sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
	io_uring_sqe_set_data64(sqe, (uintptr_t)connection | OP_RECV);
}

static void arm_send(struct connection *connection)
{
	struct io_uring_sqe *sqe = next_sqe();
	io_uring_prep_send(sqe, connection->fd, connection->buffer + connection->sent,
			   connection->received - connection->sent, MSG_NOSIGNAL);
	io_uring_sqe_set_data64(sqe, (uintptr_t)connection | OP_SEND);
}

static void arm_accept(int listener)
{
	struct io_uring_sqe *sqe = next_sqe();
	io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
	io_uring_sqe_set_data64(sqe, OP_ACCEPT);
}

int main(int argc, char **argv)
{
	struct echo_options options = read_options(argc, argv);
	poll_first = options.poll_first;
	raise_file_limit();
	int signal_fd = end_signals();

	struct io_uring_params parameters = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
		.cq_entries = CQ_ENTRIES,
	};
	int result = io_uring_queue_init_params(SQ_ENTRIES, &ring, &parameters);
	if (result < 0)
		die("io_uring_queue_init_params", -result);
	// The ring's own descriptor registered: io_uring_enter then skips looking it up.
	io_uring_register_ring_fd(&ring);

	int listener = listen_on(options.host, options.port, 0);
	struct signalfd_siginfo signal_info;
	struct io_uring_sqe *sqe = next_sqe();
	io_uring_prep_read(sqe, signal_fd, &signal_info, sizeof signal_info, 0);
	io_uring_sqe_set_data64(sqe, OP_SIGNAL);
	arm_accept(listener);

	for (;;) {
		result = io_uring_submit_and_wait(&ring, 1);
		if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY)
			die("io_uring_submit_and_wait", -result);

		unsigned head, seen = 0;
		struct io_uring_cqe *cqe;
		io_uring_for_each_cqe (&ring, head, cqe) {
			uint64_t data = cqe->user_data;
			struct connection *connection = (struct connection *)(uintptr_t)(data & ~(uint64_t)OP_MASK);
			seen++;
			switch (data & OP_MASK) {
			case OP_RECV:
				if (cqe->res <= 0) {
					end_connection(connection);
					break;
				}
				connection->received = (uint32_t)cqe->res;
				connection->sent = 0;
				arm_send(connection);
				break;
			case OP_SEND:
				if (cqe->res < 0) {
					end_connection(connection);
					break;
				}
				connection->sent += (uint32_t)cqe->res;
				if (connection->sent < connection->received)
					arm_send(connection);
				else
					arm_recv(connection, connection->received == buffer_bytes);
				break;
			case OP_ACCEPT:
				if (cqe->res >= 0)
					arm_recv(new_connection(cqe->res), true);
				else if (cqe->res != -ECONNABORTED && cqe->res != -EMFILE)
					die("accept", -cqe->res);
				if (!(cqe->flags & IORING_CQE_F_MORE))
					arm_accept(listener);
				break;
			case OP_SIGNAL: return 0;
			}
		}
		io_uring_cq_advance(&ring, seen);
	}
}
