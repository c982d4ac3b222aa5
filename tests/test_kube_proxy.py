"""Reading kube-proxy's rules gives the same result in all of its modes."""

import pytest

from fixtures.kube_proxy import PRINT_RULES, destinations, has_rules

#: Rules from real nodes, shortened to two Services with the same two Pods: 10.96.42.80, and 10.96.29.251 with session affinity
#: (in iptables and nftables).
IPTABLES = """\
*nat
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-SEP-ONE -s 10.244.1.125/32 -m comment --comment "ns/mine" -j KUBE-MARK-MASQ
-A KUBE-SEP-ONE -p tcp -m comment --comment "ns/mine" -m tcp -j DNAT --to-destination 10.244.1.125:80
-A KUBE-SEP-TWO -s 10.244.2.139/32 -m comment --comment "ns/mine" -j KUBE-MARK-MASQ
-A KUBE-SEP-TWO -p tcp -m comment --comment "ns/mine" -m tcp -j DNAT --to-destination 10.244.2.139:80
-A KUBE-SEP-DNS -p udp -m comment --comment "kube-system/kube-dns:dns" -m udp -j DNAT --to-destination 10.244.2.2:53
-A KUBE-SERVICES -d 10.96.42.80/32 -p tcp -m comment --comment "ns/mine cluster IP" -m tcp --dport 8080 -j KUBE-SVC-MINE
-A KUBE-SERVICES -d 10.96.29.251/32 -p tcp -m comment --comment "ns/aff cluster IP" -m tcp --dport 8080 -j KUBE-SVC-AFF
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment "dns cluster IP" -m udp --dport 53 -j KUBE-SVC-DNS
-A KUBE-SVC-MINE ! -s 10.244.0.0/16 -d 10.96.42.80/32 -p tcp -m tcp --dport 8080 -j KUBE-MARK-MASQ
-A KUBE-SVC-MINE -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-ONE
-A KUBE-SVC-MINE -m comment --comment "ns/mine -> 10.244.2.139:80" -j KUBE-SEP-TWO
-A KUBE-SVC-AFF -m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-ONE --mask 255.255.255.255 -j KUBE-SEP-ONE
-A KUBE-SVC-AFF -m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-TWO --mask 255.255.255.255 -j KUBE-SEP-TWO
-A KUBE-SVC-AFF -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-ONE
-A KUBE-SVC-AFF -m comment --comment "ns/aff -> 10.244.2.139:80" -j KUBE-SEP-TWO
-A KUBE-SVC-DNS -m comment --comment "kube-system/kube-dns:dns -> 10.244.2.2:53" -j KUBE-SEP-DNS
COMMIT
"""

NFTABLES = (
    """\
table ip kube-proxy {
	map no-endpoint-services {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.26.67 . tcp . 8080 comment "ns/none" : goto reject-chain }
	}

	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"
		elements = { 10.96.0.10 . udp . 53 : goto service-FY5PMXPG-kube-system/kube-dns/udp/dns,
			10.96.42.80 . tcp . 8080 : goto service-32FM2EAW-ns/mine/tcp/,
			10.96.29.251 . tcp . 8080 : goto service-4DR3MDKN-ns/aff/tcp/ }
	}

	chain reject-chain {
		comment "helper for @no-endpoint-services / @no-endpoint-nodeports"
		reject
	}

	chain service-32FM2EAW-ns/mine/tcp/ {
		meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.1.125 . 80, 1 : 10.244.2.139 . 80 }
	}

	chain service-FY5PMXPG-kube-system/kube-dns/udp/dns {
		meta l4proto udp dnat ip to numgen random mod 1 map { 0 : 10.244.2.2 . 53 }
	}

	chain endpoint-ONE-ns/aff/tcp/__10.244.1.125/80 {
		update @affinity-ONE-ns/aff/tcp/__10.244.1.125/80 { ip saddr }
		meta l4proto tcp dnat to 10.244.1.125:80
	}

	chain endpoint-TWO-ns/aff/tcp/__10.244.2.139/80 {
		update @affinity-TWO-ns/aff/tcp/__10.244.2.139/80 { ip saddr }
		meta l4proto tcp dnat to 10.244.2.139:80
	}

	chain service-4DR3MDKN-ns/aff/tcp/ {
		ip saddr @affinity-ONE-ns/aff/tcp/__10.244.1.125/80 goto endpoint-ONE-ns/aff/tcp/__10.244.1.125/80
		numgen random mod 2 vmap { 0 : goto endpoint-ONE-ns/aff/tcp/__10.244.1.125/80, """
    """1 : goto endpoint-TWO-ns/aff/tcp/__10.244.2.139/80 }
	}
}
"""
)

IPVS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.96.42.80:8080 rr
  -> 10.244.1.125:80              Masq    1      0          0
  -> 10.244.2.139:80              Masq    1      0          0
TCP  10.96.29.251:8080 rr persistent 10800
  -> 10.244.1.125:80              Masq    1      0          0
  -> 10.244.2.139:80              Masq    1      0          0
UDP  10.96.0.10:53 rr
  -> 10.244.2.2:53                Masq    1      0          0
"""

PRINTED = {"iptables": IPTABLES, "nftables": NFTABLES, "ipvs": IPVS}


@pytest.mark.parametrize("mode", PRINT_RULES)
@pytest.mark.parametrize("address", ["10.96.42.80", "10.96.29.251"])
def test_a_services_destinations_are_its_pods(mode: str, address: str) -> None:
    assert destinations(mode, PRINTED[mode], address, 8080) == {"10.244.1.125:80", "10.244.2.139:80"}


@pytest.mark.parametrize("mode", PRINT_RULES)
@pytest.mark.parametrize(
    ("address", "port"),
    [
        pytest.param("10.96.26.67", 8080, id="a Service without Pods"),
        pytest.param("10.96.1.1", 8080, id="no Service"),
        pytest.param("10.96.42.80", 808, id="another port"),
        pytest.param("0.96.42.80", 8080, id="a part of an address"),
        pytest.param("10.96.0.10", 53, id="UDP"),
    ],
)
def test_an_address_without_a_rule_has_no_destination(mode: str, address: str, port: int) -> None:
    assert destinations(mode, PRINTED[mode], address, port) == set()


@pytest.mark.parametrize("mode", PRINT_RULES)
def test_a_services_address_is_in_the_rules(mode: str) -> None:
    assert has_rules(mode, PRINTED[mode], "10.96.42.80")


@pytest.mark.parametrize("mode", PRINT_RULES)
@pytest.mark.parametrize(
    "address",
    [
        pytest.param("10.96.1.1", id="no Service"),
        pytest.param("10.96.42.8", id="the beginning of an address"),
        pytest.param("0.96.42.80", id="the end of an address"),
        pytest.param("96.42.80", id="the last bytes of an address"),
        pytest.param("10x96.42.80", id="not an address"),
    ],
)
def test_another_address_is_not_in_the_rules(mode: str, address: str) -> None:
    assert not has_rules(mode, PRINTED[mode], address)


def test_rules_that_no_packet_passes_do_not_count() -> None:
    abandoned = "-A KUBE-SVC-OLD ! -s 10.244.0.0/16 -d 10.96.7.7/32 -p tcp -m tcp --dport 8080 -j KUBE-MARK-MASQ\n"

    assert not has_rules("iptables", IPTABLES + abandoned, "10.96.7.7")
