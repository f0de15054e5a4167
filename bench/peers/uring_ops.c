// uring_ops: the yardstick of the workloads that need no client, in C on liburing: reads or writes of a file with DEPTH
// in flight, and receives that are started and cancelled in batches of 64. The same places, the same checks and the same
// shape as bench/subjects/files.mjs and cancels.mjs: one io_uring_enter a batch that submits and waits.
//
// uring_ops read|write BYTES DEPTH random|sequential [direct]
// uring_ops cancel
// Prints `ready`; answers each `run SECONDS` on standard input with a line of JSON, and `check` with one when all that
// was written is right. The end of the input ends it.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, MIB = 1 << 20, PLACES = 4096, BATCH = 64, DEPTH_MAX = 1024, OFF_THE_PAGE = 64 };

static struct io_uring ring;
static bool reading, sequential, direct;
static uint32_t block_bytes, block_count, depth;
static uint32_t *marks; // what the first four bytes of each block have to be
static uint32_t written, turn;
static uint64_t places[PLACES];
static uint8_t *buffers[DEPTH_MAX];
static uint64_t positions[DEPTH_MAX];
static int file;
static int sockets[BATCH][2];

static void die(const char *what, int error)
{
	fprintf(stderr, "uring_ops: %s: %s\n", what, strerror(error));
	exit(1);
}

static void wrong(const char *what, uint64_t at)
{
	fprintf(stderr, "uring_ops: %s at %llu\n", what, (unsigned long long)at);
	exit(3);
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void set_up_file(void)
{
	const char *folder = getenv("TMPDIR");
	char path[4096];
	snprintf(path, sizeof path, "%s/completion-port-bench-XXXXXX", folder && *folder ? folder : "/tmp");
	int writer = mkstemp(path);
	if (writer < 0)
		die(path, errno);
	block_count = block_bytes < MIB ? MIB / block_bytes : 16;
	marks = calloc(block_count, sizeof *marks);
	uint8_t *pattern = malloc(block_bytes);
	if (!marks || !pattern)
		die("malloc", ENOMEM);
	for (uint32_t block = 0; block < block_count; block++) {
		memset(pattern, (int)(block & 0xff), block_bytes);
		marks[block] = block + 1;
		memcpy(pattern, &marks[block], sizeof marks[block]);
		if (write(writer, pattern, block_bytes) != (ssize_t)block_bytes)
			die("write", errno);
	}
	free(pattern);
	written = block_count;
	file = open(path, (reading ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0) | O_CLOEXEC);
	int error = errno;
	unlink(path);
	close(writer);
	if (file < 0)
		die("open", error);
	uint32_t random = 1;
	for (uint32_t at = 0; at < PLACES; at++) {
		random = random * 1664525u + 1013904223u;
		uint64_t block =
			sequential ? at % block_count : (uint64_t)((double)random / 4294967296.0 * block_count);
		places[at] = block * block_bytes;
	}
	for (uint32_t index = 0; index < depth; index++) {
		void *memory;
		if (posix_memalign(&memory, PAGE, block_bytes + PAGE))
			die("posix_memalign", ENOMEM);
		buffers[index] = (uint8_t *)memory + (direct ? 0 : OFF_THE_PAGE);
		memset(buffers[index], 0, block_bytes);
	}
}

static void start_file(uint32_t index)
{
	uint64_t position = positions[index] = places[turn++ & (PLACES - 1)];
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	if (reading) {
		io_uring_prep_read(sqe, file, buffers[index], block_bytes, position);
	} else {
		marks[position / block_bytes] = ++written;
		memcpy(buffers[index], &written, sizeof written);
		io_uring_prep_write(sqe, file, buffers[index], block_bytes, position);
	}
	io_uring_sqe_set_data64(sqe, index);
}

static uint64_t run_file(double seconds)
{
	double end = now() + seconds;
	uint64_t done = 0;
	uint32_t going = depth;
	bool over = false;
	for (uint32_t index = 0; index < depth; index++)
		start_file(index);
	while (going > 0) {
		int result = io_uring_submit_and_wait(&ring, 1);
		if (result < 0 && result != -EINTR)
			die("io_uring_submit_and_wait", -result);
		over = over || now() >= end;
		unsigned head, seen = 0;
		struct io_uring_cqe *cqe;
		io_uring_for_each_cqe (&ring, head, cqe) {
			uint32_t index = (uint32_t)cqe->user_data, mark;
			seen++;
			if (cqe->res != (int)block_bytes)
				wrong(cqe->res < 0 ? strerror(-cqe->res) : "a short transfer", positions[index]);
			memcpy(&mark, buffers[index], sizeof mark);
			if (reading && mark != marks[positions[index] / block_bytes])
				wrong("a wrong read", positions[index]);
			done++;
			if (over)
				going--;
			else
				start_file(index);
		}
		io_uring_cq_advance(&ring, seen);
	}
	return done;
}

static void check_file(void)
{
	if (reading || !marks)
		return;
	for (uint32_t block = 0; block < block_count; block++) {
		uint32_t mark;
		if (pread(file, buffers[0], block_bytes, (off_t)block * block_bytes) != (ssize_t)block_bytes)
			wrong("a short read", (uint64_t)block * block_bytes);
		memcpy(&mark, buffers[0], sizeof mark);
		// With several in flight the kernel may order two writes of one block either way.
		if (depth == 1 ? mark != marks[block] : mark == 0 || mark > marks[block])
			wrong("a wrong block", (uint64_t)block * block_bytes);
	}
}

// Two ends of a connection over loopback, as the other subjects have them.
static void connect_pair(int pair[2])
{
	static int listener = -1;
	static struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t length = sizeof address;
	if (listener < 0) {
		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
		    listen(listener, BATCH) < 0 || getsockname(listener, (struct sockaddr *)&address, &length) < 0)
			die("listen", errno);
	}
	pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (pair[0] < 0 || connect(pair[0], (struct sockaddr *)&address, sizeof address) < 0)
		die("connect", errno);
	pair[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (pair[1] < 0)
		die("accept4", errno);
}

static uint64_t run_cancel(double seconds)
{
	static uint8_t bytes[BATCH][64];
	double end = now() + seconds;
	uint64_t done = 0;
	while (now() < end) {
		for (unsigned index = 0; index < BATCH; index++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
			io_uring_prep_recv(sqe, sockets[index][0], bytes[index], sizeof bytes[index], 0);
			io_uring_sqe_set_data64(sqe, index + 1);
		}
		int result = io_uring_submit(&ring);
		if (result < 0)
			die("io_uring_submit", -result);
		for (unsigned index = 0; index < BATCH; index++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
			io_uring_prep_cancel64(sqe, index + 1, 0);
			sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
			io_uring_sqe_set_data64(sqe, 0);
		}
		for (unsigned left = BATCH; left > 0;) {
			result = io_uring_submit_and_wait(&ring, 1);
			if (result < 0 && result != -EINTR)
				die("io_uring_submit_and_wait", -result);
			unsigned head, seen = 0;
			struct io_uring_cqe *cqe;
			io_uring_for_each_cqe (&ring, head, cqe) {
				seen++;
				if (cqe->user_data == 0 || cqe->res != -ECANCELED)
					wrong("not a cancelled receive", cqe->user_data);
				left--;
			}
			io_uring_cq_advance(&ring, seen);
		}
		done += BATCH;
	}
	return done;
}

int main(int argc, char **argv)
{
	bool cancelling = argc == 2 && !strcmp(argv[1], "cancel");
	if (cancelling) {
		for (unsigned index = 0; index < BATCH; index++)
			connect_pair(sockets[index]);
	} else {
		if (argc < 5 || (strcmp(argv[1], "read") && strcmp(argv[1], "write"))) {
			fprintf(stderr, "uring_ops: read|write BYTES DEPTH random|sequential [direct], or cancel\n");
			return 2;
		}
		reading = !strcmp(argv[1], "read");
		block_bytes = (uint32_t)atoi(argv[2]);
		depth = (uint32_t)atoi(argv[3]);
		sequential = !strcmp(argv[4], "sequential");
		direct = argc > 5;
		if (block_bytes < 4 || depth == 0 || depth > DEPTH_MAX)
			return 2;
		set_up_file();
	}
	struct io_uring_params parameters = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
	int result = io_uring_queue_init_params(DEPTH_MAX, &ring, &parameters);
	if (result < 0)
		die("io_uring_queue_init_params", -result);
	io_uring_register_ring_fd(&ring);
	puts("ready");
	fflush(stdout);
	char line[128];
	while (fgets(line, sizeof line, stdin)) {
		double seconds = 0;
		char word[16] = "";
		sscanf(line, "%15s %lf", word, &seconds);
		if (!strcmp(word, "run")) {
			uint64_t done = cancelling ? run_cancel(seconds) : run_file(seconds);
			printf("{\"operations\":%llu}\n", (unsigned long long)done);
		} else {
			check_file();
			printf("{\"right\":true}\n");
		}
		fflush(stdout);
	}
	return 0;
}
