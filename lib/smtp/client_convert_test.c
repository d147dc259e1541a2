/* Unit tests of the conversion to 7-bit lines. */
#include "smtp/client_convert.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static void
check_bytes(struct slice in, const char *want)
{
	struct buf out = { 0 };

	client_convert(in, &out);
	if (!slice_eq_str(buf_slice(&out), want))
		fail_msg("got:\n%.*s\nwant:\n%s", SLICE_ARG(buf_slice(&out)), want);
	buf_free(&out);
}
#define CHECK(in, want) check_bytes(SLICE_LIT(in), want)

static void
test_leaves(void **state)
{
	(void)state;
	CHECK("Subject: x\r\n\r\nplain\r\n", "Subject: x\r\n\r\nplain\r\n");
	CHECK("", "");
	CHECK("Subject: x\r\n", "Subject: x\r\n");
	/* declared without need */
	CHECK("MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\nSubject: x\r\n\r\nplain\r\n",
	    "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 7bit\r\nSubject: x\r\n\r\nplain\r\n");
	/* text with little to quote; blanks at the end, "=", a folded field that goes */
	CHECK("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
	      "Content-Transfer-Encoding:\r\n 8bit\r\n\r\nsome words, and an \xc3\xbc, a = and "
	      "blanks \r\n\r\n.\r\n",
	    "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
	    "Content-Transfer-Encoding: quoted-printable\r\n\r\n"
	    "some words, and an =C3=BC, a =3D and blanks=20\r\n\r\n.\r\n");
	/* without any MIME header */
	CHECK("Subject: x\r\n\r\n\xfc\xfc\xfc\r\n",
	    "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"
	    "Content-Transfer-Encoding: base64\r\n\r\n/Pz8DQo=\r\n");
	/* binary: bare CR and LF, NUL */
	CHECK("MIME-Version: 1.0\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: "
	      "binary\r\n\r\n\0\r\n\n.\r",
	    "MIME-Version: 1.0\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: "
	    "base64\r\n\r\nAA0KCi4N\r\n");
	/* encoded already: untouched */
	CHECK("MIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\n\r\n\xfc\r\n",
	    "MIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\n\r\n\xfc\r\n");
}

static void
test_tree(void **state)
{
	(void)state;
	CHECK("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n"
	      "Content-Transfer-Encoding: 8bit\r\n\r\npreamble\r\n--b\r\n\r\nno header at all\r\n"
	      "--b\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
	      "<p>many plain words and one \xe4 in them</p>\r\n"
	      "--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
	      "Subject: inner\r\n\r\n\xfc\xfc\xfc\r\n"
	      "--b\r\nContent-Type: application/x\r\n\r\n\xff\xfe\xfd\r\n--b--\r\nepilogue\r\n",
	    "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n"
	    "Content-Transfer-Encoding: 7bit\r\n\r\npreamble\r\n--b\r\n\r\nno header at all\r\n"
	    "--b\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
	    "<p>many plain words and one =E4 in them</p>\r\n"
	    "--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
	    "Subject: inner\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; "
	    "charset=unknown-8bit\r\n"
	    "Content-Transfer-Encoding: base64\r\n\r\n/Pz8\r\n"
	    "--b\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: "
	    "base64\r\n\r\n//79\r\n"
	    "--b--\r\nepilogue\r\n");
}

/* A header whose last line ends with the boundary stays a header. */
static void
test_open_header(void **state)
{
	(void)state;
	CHECK("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
	      "Content-Transfer-Encoding: binary\r\nX: y\r\n--b--\r\n",
	    "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
	    "Content-Transfer-Encoding: 7bit\r\nX: y\r\n--b--\r\n");
	CHECK("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
	      "X: y\r\nContent-Transfer-Encoding: binary\r\n--b--\r\n",
	    "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
	    "X: y\r\nContent-Transfer-Encoding: 7bit\r\n--b--\r\n");
	CHECK("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: "
	      "message/rfc822\r\n"
	      "\r\nContent-Transfer-Encoding: 8bit\r\nX: y\r\n--b--\r\n",
	    "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: "
	    "message/rfc822\r\n"
	    "\r\nContent-Transfer-Encoding: 7bit\r\nX: y\r\n--b--\r\n");
}

static void
test_long_lines(void **state)
{
	struct buf in = { 0 }, out = { 0 };
	size_t line = 0;

	(void)state;
	buf_add_str(&in, "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n\r\n");
	for (int i = 0; i < 5000; i++)
		buf_add_byte(&in, i % 100 ? 'x' : 0xe4);
	buf_add_str(&in, "\r\n");
	client_convert(buf_slice(&in), &out);
	for (size_t i = 0; i < buf_len(&out); i++) {
		unsigned char c = buf_slice(&out).p[i];

		line = c == '\n' ? 0 : line + 1;
		assert_in_range(line, 0, 77);
		assert_in_range(c, 1, 0x7f);
	}
	buf_free(&in);
	buf_free(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leaves),
		cmocka_unit_test(test_tree),
		cmocka_unit_test(test_open_header),
		cmocka_unit_test(test_long_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
