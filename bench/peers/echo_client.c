// echo_client: the load of the echo figures: N TCP connections, each with one message in flight (a closed loop), every
// echoed byte compared with what was sent. It has to cost less than any server it drives, or the server would be measured
// half asleep; so it receives with one multishot request a connection and a ring of buffers, and asks for no completion of
// its sends. With --spin it never sleeps: at one connection two thirds of a server's cost would otherwise be waking it.
//
// echo_client --port N [--host ADDRESS] [--connections N] [--bytes N] [--seconds S | --messages N] [--portion N]
//             [--cpu N] [--spin] [--control]
//
// Connections are opened in portions, and each is echoed once before the next portion begins: a storm beyond the accept
// queue leaves connections that the client believes in and the server never saw. Their source addresses are spread over
// 127.0.0.2 and its neighbours, so that many rounds do not run out of ports.
//
// It prints one line of JSON: messages, seconds, errors, latency. With --control it reads commands from standard input
// instead, and answers each with a line of JSON: `connect`, `run SECONDS`, `messages N`, `closed` (wait until the server
// has closed every connection), `close`, `quit`. The end of the input ends it.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SQ_ENTRIES = 4096, CQ_ENTRIES = 32768, BUFFER_GROUP = 1, SOURCE_PORTION = 4096 };
enum { DATA_RECV = 0, DATA_SEND = 1 };

struct connection {
	int fd;
	bool open;
	bool waiting;	   // a message is out and not all of it is back
	uint32_t returned; // bytes of the current message that came back
	uint64_t sent_at;  // ns
	uint64_t sequence;
	uint8_t *message;
};

static struct io_uring ring;
static struct io_uring_buf_ring *buffers;
static uint8_t *buffer_memory;
static unsigned buffer_count;
static uint32_t buffer_bytes;

static struct connection *connections;
static unsigned connection_count = 1;
static unsigned open_count;
static unsigned portion = 128;
static uint32_t message_bytes = 64;
static bool spin;
static struct sockaddr_in server = {.sin_family = AF_INET};

static uint64_t errors;
static uint64_t completed;
static unsigned in_flight;
static uint64_t to_send; // messages that may still be started
static uint64_t now;	 // of the current batch
static uint64_t deadline;

// Latencies in ns, in buckets of at most 1/32 of their value.
enum { SUB_BITS = 5, BUCKETS = (64 - SUB_BITS + 1) << SUB_BITS };
static uint64_t histogram[BUCKETS];
static uint64_t latency_max;

static void die(const char *what, int error)
{
	fprintf(stderr, "echo_client: %s: %s\n", what, strerror(error));
	exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static unsigned bucket_of(uint64_t value)
{
	if (value < (1u << SUB_BITS))
		return (unsigned)value;
	unsigned top = 63 - (unsigned)__builtin_clzll(value);
	return ((top - SUB_BITS + 1) << SUB_BITS) + (unsigned)((value >> (top - SUB_BITS)) & ((1u << SUB_BITS) - 1));
}

static uint64_t bucket_start(unsigned bucket)
{
	unsigned row = bucket >> SUB_BITS, column = bucket & ((1u << SUB_BITS) - 1);
	return row == 0 ? column : ((uint64_t)(column | (1u << SUB_BITS))) << (row - 1);
}

static double percentile_us(uint64_t total, double fraction)
{
	uint64_t limit = (uint64_t)((double)total * fraction), seen = 0;
	for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
		seen += histogram[bucket];
		if (seen > limit)
			return (double)bucket_start(bucket) / 1000.0;
	}
	return (double)latency_max / 1000.0;
}

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

static void arm_recv(unsigned index)
{
	struct io_uring_sqe *sqe = next_sqe();
	io_uring_prep_recv_multishot(sqe, connections[index].fd, NULL, 0, 0);
	sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = BUFFER_GROUP;
	io_uring_sqe_set_data64(sqe, (uint64_t)index << 1 | DATA_RECV);
}

// A new message: its first bytes differ from those of every other message of this connection and of its neighbours.
static void prepare_message(unsigned index)
{
	struct connection *connection = &connections[index];
	uint64_t stamp = (++connection->sequence * 0x9E3779B97F4A7C15u) ^ ((uint64_t)index << 32);
	memcpy(connection->message, &stamp, message_bytes < sizeof stamp ? message_bytes : sizeof stamp);
	connection->returned = 0;
	connection->waiting = true;
	connection->sent_at = now;
	in_flight++;
}

static void send_plain(struct connection *connection);

static void start_message(unsigned index)
{
	prepare_message(index);
	if (spin) {
		send_plain(&connections[index]);
		return;
	}
	struct io_uring_sqe *sqe = next_sqe();
	io_uring_prep_send(sqe, connections[index].fd, connections[index].message, message_bytes,
			   MSG_NOSIGNAL | MSG_WAITALL);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	io_uring_sqe_set_data64(sqe, (uint64_t)index << 1 | DATA_SEND);
}

static void lose(struct connection *connection, bool is_error)
{
	if (connection->waiting) {
		connection->waiting = false;
		in_flight--;
		errors++;
	} else if (is_error) {
		errors++;
	}
	if (connection->open) {
		connection->open = false;
		close(connection->fd);
		open_count--;
	}
}

// Bytes came back. The closed loop: the last of them starts the next message.
static void returned(unsigned index, const uint8_t *bytes, uint32_t length)
{
	struct connection *connection = &connections[index];
	if (!connection->waiting || length > message_bytes - connection->returned ||
	    memcmp(bytes, connection->message + connection->returned, length) != 0) {
		fprintf(stderr, "echo_client: connection %u: not what was sent\n", index);
		exit(3);
	}
	connection->returned += length;
	if (connection->returned < message_bytes)
		return;
	connection->waiting = false;
	in_flight--;
	completed++;
	uint64_t latency = now - connection->sent_at;
	histogram[bucket_of(latency)]++;
	if (latency > latency_max)
		latency_max = latency;
	if (to_send > 0 && now < deadline) {
		to_send--;
		start_message(index);
	}
}

static void on_completion(const struct io_uring_cqe *cqe)
{
	unsigned index = (unsigned)(cqe->user_data >> 1);
	struct connection *connection = &connections[index];
	if ((cqe->user_data & 1) == DATA_SEND) { // only failures come
		lose(connection, true);
		return;
	}
	if (cqe->flags & IORING_CQE_F_BUFFER) {
		unsigned id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
		uint8_t *bytes = buffer_memory + (size_t)id * buffer_bytes;
		if (cqe->res > 0)
			returned(index, bytes, (uint32_t)cqe->res);
		io_uring_buf_ring_add(buffers, bytes, buffer_bytes, (unsigned short)id,
				      io_uring_buf_ring_mask(buffer_count), 0);
		io_uring_buf_ring_advance(buffers, 1);
	}
	if (cqe->res == 0 || (cqe->res < 0 && cqe->res != -ENOBUFS))
		lose(connection, cqe->res < 0 && cqe->res != -ECANCELED);
	else if (!(cqe->flags & IORING_CQE_F_MORE) && connection->open)
		arm_recv(index);
}

static void turn(void)
{
	int result = io_uring_submit_and_wait(&ring, 1);
	if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY)
		die("io_uring_submit_and_wait", -result);
	now = clock_ns(CLOCK_MONOTONIC);
	unsigned head, seen = 0;
	struct io_uring_cqe *cqe;
	io_uring_for_each_cqe (&ring, head, cqe) {
		on_completion(cqe);
		seen++;
	}
	io_uring_cq_advance(&ring, seen);
}

static void send_plain(struct connection *connection)
{
	uint32_t sent = 0;
	while (sent < message_bytes) {
		ssize_t result = send(connection->fd, connection->message + sent, message_bytes - sent, MSG_NOSIGNAL);
		if (result < 0 && errno != EINTR) {
			lose(connection, true);
			return;
		}
		if (result > 0)
			sent += (uint32_t)result;
	}
}

// Looks at every connection once, without sleeping.
static void spin_turn(unsigned first, unsigned end)
{
	static uint8_t bytes[65536];
	for (unsigned index = first; index < end; index++) {
		struct connection *connection = &connections[index];
		if (!connection->open)
			continue;
		uint32_t limit = message_bytes < sizeof bytes ? message_bytes : sizeof bytes;
		ssize_t result = recv(connection->fd, bytes, limit, MSG_DONTWAIT);
		now = clock_ns(CLOCK_MONOTONIC);
		if (result > 0)
			returned(index, bytes, (uint32_t)result);
		else if (result == 0 || (errno != EAGAIN && errno != EINTR))
			lose(connection, result < 0);
	}
}

static void until_echoed(unsigned first, unsigned end)
{
	while (in_flight > 0) {
		if (spin)
			spin_turn(first, end);
		else
			turn();
	}
}

static void connect_one(unsigned index)
{
	struct connection *connection = &connections[index];
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket", errno);
	if ((ntohl(server.sin_addr.s_addr) >> 24) == 127) {
		int on = 1;
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
		struct sockaddr_in source = {.sin_family = AF_INET,
					     .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + index / SOURCE_PORTION)};
		if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0)
			die("bind", errno);
	}
	if (connect(fd, (struct sockaddr *)&server, sizeof server) < 0)
		die("connect", errno);
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	connection->fd = fd;
	connection->open = true;
	connection->waiting = false;
	open_count++;
	if (!spin)
		arm_recv(index);
}

static void connect_all(void)
{
	to_send = 0;
	for (unsigned first = 0; first < connection_count; first += portion) {
		unsigned end = first + portion < connection_count ? first + portion : connection_count;
		for (unsigned index = first; index < end; index++)
			connect_one(index);
		now = clock_ns(CLOCK_MONOTONIC);
		for (unsigned index = first; index < end; index++)
			start_message(index);
		until_echoed(first, end);
	}
	if (errors > 0 || open_count != connection_count) {
		fprintf(stderr, "echo_client: %u of %u connections are open\n", open_count, connection_count);
		exit(1);
	}
}

static void close_all(void)
{
	for (unsigned index = 0; index < connection_count; index++)
		if (connections[index].open)
			shutdown(connections[index].fd, SHUT_WR);
	while (open_count > 0) {
		if (spin)
			spin_turn(0, connection_count);
		else
			turn();
	}
}

static void report(double seconds, double cpu)
{
	printf("{\"connections\":%u,\"bytes\":%u,\"messages\":%llu,\"seconds\":%.6f,\"messagesPerSecond\":%.0f,"
	       "\"errors\":%llu,"
	       "\"clientCpuSeconds\":%.6f,\"latencyUs\":{\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}}\n",
	       connection_count, message_bytes, (unsigned long long)completed, seconds, (double)completed / seconds,
	       (unsigned long long)errors, cpu, percentile_us(completed, 0.5), percentile_us(completed, 0.99),
	       percentile_us(completed, 0.999), (double)latency_max / 1000.0);
	fflush(stdout);
}

static void run(double seconds, uint64_t messages)
{
	memset(histogram, 0, sizeof histogram);
	latency_max = completed = errors = 0;
	uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	uint64_t start = now = clock_ns(CLOCK_MONOTONIC);
	deadline = seconds > 0 ? start + (uint64_t)(seconds * 1e9) : UINT64_MAX;
	to_send = messages > 0 ? messages : UINT64_MAX;
	for (unsigned index = 0; index < connection_count && to_send > 0; index++) {
		if (!connections[index].open)
			continue;
		to_send--;
		start_message(index);
	}
	until_echoed(0, connection_count);
	uint64_t end = clock_ns(CLOCK_MONOTONIC);
	report((double)(end - start) / 1e9, (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e9);
}

static void set_up_ring(void)
{
	struct io_uring_params parameters = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
		.cq_entries = CQ_ENTRIES,
	};
	int result = io_uring_queue_init_params(SQ_ENTRIES, &ring, &parameters);
	if (result < 0)
		die("io_uring_queue_init_params", -result);
	io_uring_register_ring_fd(&ring);

	buffer_bytes = message_bytes < 16384 ? message_bytes : 16384;
	for (buffer_count = 16; buffer_count < 2 * connection_count && buffer_count < 16384;)
		buffer_count *= 2;
	buffer_memory = malloc((size_t)buffer_count * buffer_bytes);
	buffers = io_uring_setup_buf_ring(&ring, buffer_count, BUFFER_GROUP, 0, &result);
	if (!buffer_memory || !buffers)
		die("io_uring_setup_buf_ring", -result);
	for (unsigned id = 0; id < buffer_count; id++)
		io_uring_buf_ring_add(buffers, buffer_memory + (size_t)id * buffer_bytes, buffer_bytes,
				      (unsigned short)id, io_uring_buf_ring_mask(buffer_count), (int)id);
	io_uring_buf_ring_advance(buffers, (int)buffer_count);
}

static void obey_commands(void)
{
	char line[128];
	while (fgets(line, sizeof line, stdin)) {
		double number = 0;
		char word[16] = "";
		sscanf(line, "%15s %lf", word, &number);
		if (!strcmp(word, "connect")) {
			errors = 0;
			connect_all();
			printf("{\"open\":%u}\n", open_count);
		} else if (!strcmp(word, "run")) {
			run(number, 0);
		} else if (!strcmp(word, "messages")) {
			run(0, (uint64_t)number);
		} else if (!strcmp(word, "closed")) {
			while (open_count > 0) {
				if (spin)
					spin_turn(0, connection_count);
				else
					turn();
			}
			printf("{\"open\":0}\n");
		} else if (!strcmp(word, "close")) {
			close_all();
			printf("{\"open\":0}\n");
		} else if (!strcmp(word, "quit")) {
			return;
		} else {
			fprintf(stderr, "echo_client: no such command: %s", line);
			exit(2);
		}
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	double seconds = 0;
	uint64_t messages = 0;
	int cpu = -1;
	bool control = false;
	server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	static const struct option options[] = {{"host", required_argument, NULL, 'h'},
						{"port", required_argument, NULL, 'p'},
						{"connections", required_argument, NULL, 'c'},
						{"bytes", required_argument, NULL, 'b'},
						{"seconds", required_argument, NULL, 's'},
						{"messages", required_argument, NULL, 'm'},
						{"portion", required_argument, NULL, 'o'},
						{"cpu", required_argument, NULL, 'u'},
						{"spin", no_argument, NULL, 'i'},
						{"control", no_argument, NULL, 'r'},
						{0}};
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (option) {
		case 'h':
			if (inet_pton(AF_INET, optarg, &server.sin_addr) != 1)
				die(optarg, EINVAL);
			break;
		case 'p': server.sin_port = htons((uint16_t)atoi(optarg)); break;
		case 'c': connection_count = (unsigned)atoi(optarg); break;
		case 'b': message_bytes = (uint32_t)atoi(optarg); break;
		case 's': seconds = atof(optarg); break;
		case 'm': messages = strtoull(optarg, NULL, 10); break;
		case 'o': portion = (unsigned)atoi(optarg); break;
		case 'u': cpu = atoi(optarg); break;
		case 'i': spin = true; break;
		case 'r': control = true; break;
		default: return 2;
		}
	}
	if (server.sin_port == 0 || connection_count == 0 || message_bytes == 0 || portion == 0) {
		fprintf(stderr, "echo_client: --port is needed, and --connections, --bytes and --portion above 0\n");
		return 2;
	}
	if (cpu >= 0) {
		cpu_set_t set;
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		if (sched_setaffinity(0, sizeof set, &set) < 0)
			die("sched_setaffinity", errno);
	}
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);

	connections = calloc(connection_count, sizeof *connections);
	if (!connections)
		die("calloc", ENOMEM);
	for (unsigned index = 0; index < connection_count; index++) {
		connections[index].message = malloc(message_bytes);
		if (!connections[index].message)
			die("malloc", ENOMEM);
		for (uint32_t at = 0; at < message_bytes; at++)
			connections[index].message[at] = (uint8_t)(index * 7 + at * 13);
	}
	if (!spin)
		set_up_ring();
	if (control) {
		obey_commands();
	} else {
		connect_all();
		run(messages > 0 ? seconds : (seconds > 0 ? seconds : 1), messages);
		close_all();
	}
	return errors > 0 ? 1 : 0;
}
